"""`/api/v1/usage` and `/api/v1/track`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from entitlements.api.exact import ExactRoute
from entitlements.api.parameters import Reader, ok
from entitlements.usage_records.api.parameters import (
    ListingParameters,
    SummaryParameters,
    TrackSummaryParameters,
)
from entitlements.usage_records.api.views import (
    RecordBatch,
    RecordPage,
    RecordView,
    SummaryView,
    TrackedPage,
    as_of_json,
    listing_json,
    record_json,
    summary_json,
    tracked_json,
)
from entitlements.usage_records.api.wire import TrackBody, UsageBatchBody, UsageBody
from entitlements.usage_records.service import UsageService
from entitlements.usage_records.summary import SummaryService
from meterline.web.auth import Principal, requires
from meterline.web.idempotency import EffectId
from meterline.web.json import ExactJSONResponse

Writer = Annotated[Principal, Depends(requires("ingest"))]


def router(service: UsageService, summaries: SummaryService) -> APIRouter:
    """Recording calls, and what was recorded."""
    api = APIRouter(
        prefix="/api/v1", default_response_class=ExactJSONResponse, route_class=ExactRoute
    )
    _add_usage(api, service, summaries)
    _add_track(api, service, summaries)
    return api


def _add_usage(api: APIRouter, service: UsageService, summaries: SummaryService) -> None:
    @api.post("/usage", status_code=201, tags=["Usage records"], responses=ok(RecordView, 201))
    async def record_usage(principal: Writer, body: UsageBody, effect_id: EffectId) -> Response:
        """Record a model call with its price at its time. It is durable when this answers.

        With an `id` or an `Idempotency-Key` it counts once, however often it is sent. Without a
        price `priced` is `unpriced`, and `costUsd` is null: never 0, nor another model's price.
        """
        spec = body.spec(service.limits, effect_id)
        (record,) = await service.report(principal.namespace, [spec])
        return ExactJSONResponse(record_json(record), status_code=201)

    @api.post(
        "/usage/batch", status_code=201, tags=["Usage records"], responses=ok(RecordBatch, 201)
    )
    async def record_usages(
        principal: Writer, body: UsageBatchBody, effect_id: EffectId
    ) -> Response:
        """Record many model calls, all or none: the same as one after the other, but quicker."""
        specs = body.specs(service.limits, effect_id)
        records = await service.report(principal.namespace, specs, "items[{index}].{}")
        items = [record_json(one) for one in records]
        return ExactJSONResponse({"items": items}, status_code=201)

    @api.get("/usage", tags=["Usage records"], responses=ok(RecordPage))
    async def list_usage(
        principal: Reader, given: Annotated[ListingParameters, Query()]
    ) -> Response:
        """List records, tracked calls included, newest first."""
        wanted, limit = given.filter(), given.size(service.limits)
        if given.wait:
            await service.wait()
        as_of = await service.as_of()
        found = await service.list(principal.namespace, wanted, limit)
        return ExactJSONResponse({**listing_json(found, limit), **as_of_json(as_of)})

    @api.get("/usage/summary", tags=["Usage records"], responses=ok(SummaryView))
    async def summarize_usage(
        principal: Reader, given: Annotated[SummaryParameters, Query()]
    ) -> Response:
        """Total cost and tokens, by model and by context. The same can be asked of the meters
        `meterline_cost_usd`, `meterline_input_tokens` and so on."""
        query = given.query()
        if given.wait:
            await service.wait()
        as_of = await service.as_of()
        found = await summaries.summary(principal.namespace, query)
        return ExactJSONResponse({**summary_json(found), **as_of_json(as_of)})


def _add_track(api: APIRouter, service: UsageService, summaries: SummaryService) -> None:
    @api.post("/track", status_code=201, tags=["Tracking"], responses=ok(RecordView, 201))
    async def track_call(principal: Writer, body: TrackBody, effect_id: EffectId) -> Response:
        """Track a model call by what its provider answered. It counts as one message.

        `openAiResponse` and `response` take a whole answer, the last event of a stream, or the
        array of all its events. An answer that has an id counts once.
        """
        spec = body.spec(service.limits, effect_id)
        record = await service.record(principal.namespace, spec)
        return ExactJSONResponse(record_json(record), status_code=201)

    @api.get("/track/summary", tags=["Tracking"], responses=ok(TrackedPage))
    async def summarize_tracked(
        principal: Reader, given: Annotated[TrackSummaryParameters, Query()]
    ) -> Response:
        """Messages, tokens and cost of tracked calls, by key, tag or conversation."""
        query = given.query()
        if given.wait:
            await service.wait()
        as_of = await service.as_of()
        found = await summaries.tracked(principal.namespace, query, given.by)
        return ExactJSONResponse({**tracked_json(found, given.by), **as_of_json(as_of)})
