"""`/api/v1/meters`, as OpenMeter v1 has it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from aggregator.api.parameters import RANGE_PARAMETERS
from aggregator.params import range_input
from aggregator.service import MeterChange, MeterService, MeterStatus
from meterline.kernel.errors import ConflictError, FieldError, ValidationError
from meterline.kernel.instants import format_instant, parse_instant
from meterline.kernel.meters import Aggregation, Meter, MeterSpec, validate_meter
from meterline.web.auth import Principal, requires
from meterline.web.json import ExactJSONResponse

_SLUG = "^[a-z0-9]+(?:_[a-z0-9]+)*$"


_OWN = "meterline_"
"""Slugs of meters that the server makes for itself begin so: what it calculates relies on them."""
Slug = Annotated[str, Path(examples=["tokens"])]
GroupKey = Annotated[str, Path(examples=["model"])]


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class MeterUpdate(_Wire):
    """What can change of a meter. What is absent or null stays as it is."""

    name: str | None = Field(None, min_length=1, max_length=256)
    description: str | None = Field(None, max_length=1024)
    metadata: dict[str, str] | None = None
    group_by: dict[str, str] | None = Field(
        None, description="Another `groupBy` also counts events that are stored already."
    )


class MeterCreate(_Wire):
    """A meter to make."""

    slug: str = Field(
        min_length=1, max_length=64, pattern=_SLUG, description="Its name in URLs; stays for ever."
    )
    aggregation: Aggregation
    event_type: str = Field(
        min_length=1, max_length=1024, description="The `type` of the events that it counts."
    )
    value_property: str | None = Field(
        None, description="JSON path of the value in `data`, as `$.tokens`. None for COUNT."
    )
    group_by: dict[str, str] | None = Field(
        None, description="JSON paths by key, as `model: $.model`."
    )
    event_from: str | None = Field(
        None,
        description="Events before are not counted.",
        json_schema_extra={"format": "date-time"},
    )
    name: str | None = Field(None, min_length=1, max_length=256, description="The slug if absent.")
    description: str | None = Field(None, max_length=1024)
    metadata: dict[str, str] | None = None


class StatusView(_Wire):
    """Whether all stored events are in the meter's own tables. Answers are right either way."""

    state: str = Field(description="`ready` or `backfilling`")
    progress: float = Field(ge=0, le=1)


class MeterView(_Wire):
    """A meter."""

    id: str
    slug: str
    name: str
    description: str | None = None
    aggregation: Aggregation
    event_type: str
    value_property: str | None = None
    group_by: dict[str, str]
    event_from: str | None = Field(None, json_schema_extra={"format": "date-time"})
    metadata: dict[str, str]
    created_at: str = Field(json_schema_extra={"format": "date-time"})
    updated_at: str = Field(json_schema_extra={"format": "date-time"})
    status: StatusView


Reader = Annotated[Principal, Depends(requires("read"))]
Admin = Annotated[Principal, Depends(requires("admin"))]


def router(service: MeterService) -> APIRouter:
    """`/api/v1/meters` over a service; queries are in `api.query`."""
    api = APIRouter(
        prefix="/api/v1/meters", tags=["Meters"], default_response_class=ExactJSONResponse
    )

    def view(meter: Meter) -> MeterView:
        return meter_view(meter, service.status(meter))

    async def refuse_own(namespace: str, id_or_slug: Slug) -> None:
        meter = await service.get(namespace, id_or_slug)
        if meter.slug.startswith(_OWN):
            raise ConflictError(f"the server itself needs the meter {meter.slug} as it is")

    @api.get("", response_model_exclude_none=True)
    async def list_meters(principal: Reader) -> list[MeterView]:
        """List the meters, oldest first."""
        return [view(meter) for meter in await service.list(principal.namespace)]

    @api.post("", status_code=201, response_model_exclude_none=True)
    async def create_meter(principal: Admin, body: MeterCreate) -> MeterView:
        """Make a meter. It also counts events that are stored already."""
        return view(await service.create(principal.namespace, _spec(body)))

    @api.get("/{id_or_slug}", response_model_exclude_none=True)
    async def get_meter(principal: Reader, id_or_slug: Slug) -> MeterView:
        """Get a meter by its slug or id."""
        return view(await service.get(principal.namespace, id_or_slug))

    @api.put("/{id_or_slug}", response_model_exclude_none=True)
    async def update_meter(principal: Admin, id_or_slug: Slug, body: MeterUpdate) -> MeterView:
        """Change a meter. Queries follow at once, also over events of the past."""
        await refuse_own(principal.namespace, id_or_slug)
        change = MeterChange(body.name, body.description, body.metadata, body.group_by)
        return view(await service.update(principal.namespace, id_or_slug, change))

    @api.delete("/{id_or_slug}", status_code=204)
    async def delete_meter(principal: Admin, id_or_slug: Slug) -> None:
        """Delete a meter. The events stay: a new meter counts them again."""
        await refuse_own(principal.namespace, id_or_slug)
        await service.delete(principal.namespace, id_or_slug)

    @api.get("/{id_or_slug}/subjects", openapi_extra={"parameters": RANGE_PARAMETERS})
    async def list_meter_subjects(
        principal: Reader, id_or_slug: Slug, request: Request
    ) -> list[str]:
        """List the subjects that used what the meter counts."""
        begin, end = range_input(request.query_params.multi_items())
        return list(await service.subjects(principal.namespace, id_or_slug, begin, end))

    @api.get("/{id_or_slug}/group-by/{key}/values", openapi_extra={"parameters": RANGE_PARAMETERS})
    async def list_meter_group_by_values(
        principal: Reader, id_or_slug: Slug, key: GroupKey, request: Request
    ) -> list[str]:
        """List the values of a groupBy key. Events without the key have none to show."""
        begin, end = range_input(request.query_params.multi_items())
        values = await service.group_values(principal.namespace, id_or_slug, key, begin, end)
        return list(values)

    return api


def meter_view(meter: Meter, status: MeterStatus) -> MeterView:
    """A meter on the wire."""
    return MeterView(
        id=meter.id,
        slug=meter.slug,
        name=meter.name,
        description=meter.description,
        aggregation=meter.aggregation,
        event_type=meter.event_type,
        value_property=meter.value_property,
        group_by=dict(meter.group_by),
        event_from=_text(meter.event_from),
        metadata=dict(meter.metadata),
        created_at=format_instant(meter.created_at),
        updated_at=format_instant(meter.updated_at),
        status=StatusView(state=status.state, progress=status.progress),
    )


def meter_spec(document: Mapping[str, Any]) -> MeterSpec:
    """The meter that a document spells which is like the body of `POST /api/v1/meters`."""
    return _spec(MeterCreate.model_validate(dict(document)))


def _spec(body: MeterCreate) -> MeterSpec:
    return validate_meter(
        slug=body.slug,
        aggregation=body.aggregation,
        event_type=body.event_type,
        name=body.name,
        description=body.description,
        value_property=body.value_property,
        group_by=body.group_by,
        event_from=None if body.event_from is None else _event_from(body.event_from),
        metadata=body.metadata,
    )


def _event_from(text: str) -> datetime:
    try:
        return parse_instant(text)
    except ValidationError as error:
        fault = FieldError("eventFrom", error.detail)
        raise ValidationError(f"eventFrom: {error.detail}", errors=[fault]) from None


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else format_instant(instant)
