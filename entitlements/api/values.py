"""Values, history and access: what may be used."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from entitlements.api.encode import access_json, history_json
from entitlements.api.parameters import Fresh, Reader, Time, ok
from entitlements.api.views import AccessView, HistoryView, ValueView
from entitlements.api.wire import Instant, Name
from entitlements.balance import History
from entitlements.services.values import HistorySpec, ValueService
from entitlements.specs import fault
from meterline.kernel.errors import ValidationError
from meterline.kernel.windows import WindowSize, load_zone
from meterline.web.json import ExactJSONResponse

_MANY = 1_000
_ONE = "/subjects/{subject:path}/entitlements/{entitlement}"


def router(service: ValueService) -> APIRouter:
    """`…/value`, `…/history` and `…/access` over a service."""
    api = APIRouter(
        prefix="/api/v1", tags=["Entitlements"], default_response_class=ExactJSONResponse
    )

    @api.get(_ONE + "/value", responses=ok(ValueView))
    async def get_entitlement_value(
        principal: Reader, subject: Name, entitlement: Name, fresh: Fresh, time: Time = None
    ) -> Response:
        """Whether a subject may use a feature, and what is left."""
        await fresh.reached(service)
        access = await service.value(principal.namespace, subject, entitlement, time)
        return ExactJSONResponse(access_json(access))

    @api.get(_ONE + "/history", responses=ok(HistoryView))
    async def get_entitlement_history(
        principal: Reader,
        subject: Name,
        entitlement: Name,
        fresh: Fresh,
        begin: Annotated[
            Instant | None,
            Query(alias="from", description="The start of the current usage period if absent."),
        ] = None,
        end: Annotated[Instant | None, Query(alias="to", description="Now if absent.")] = None,
        window_size: Annotated[WindowSize, Query(alias="windowSize")] = WindowSize.DAY,
        window_time_zone: Annotated[
            str, Query(alias="windowTimeZone", description="IANA zone of the windows.")
        ] = "UTC",
    ) -> Response:
        """Usage and balance in windows, and the burn-down of each grant."""
        try:
            zone = load_zone(window_time_zone)
        except ValidationError as error:
            raise fault("windowTimeZone", error.detail) from None
        await fresh.reached(service)
        spec = HistorySpec(begin, end, window_size, zone)
        told = await service.history(principal.namespace, subject, entitlement, spec)
        # Much of it takes a while to write, and other requests should not wait.
        if len(told.windows) + len(told.segments) > _MANY:
            return await asyncio.to_thread(_history, told)
        return _history(told)

    @api.get("/subjects/{subject:subject}/access", responses=ok(AccessView))
    async def get_subject_access(
        principal: Reader, subject: Name, fresh: Fresh, time: Time = None
    ) -> Response:
        """The values of all features of a subject in one call, by feature key."""
        await fresh.reached(service)
        answers = await service.access(principal.namespace, subject, time)
        return ExactJSONResponse(
            {"entitlements": {key: access_json(one) for key, one in answers.items()}}
        )

    return api


def _history(told: History) -> Response:
    return ExactJSONResponse(history_json(told))
