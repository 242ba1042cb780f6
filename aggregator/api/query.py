"""`/api/v1/meters/{idOrSlug}/query`, as JSON and as CSV."""

import asyncio
import re
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field, StrictStr
from starlette.responses import Response

from aggregator.api.parameters import query_parameters
from aggregator.query import QueryInput, QueryRow
from aggregator.service import MeterService, QueryResult
from meterline.kernel.errors import FieldError, ValidationError
from meterline.kernel.instants import format_instant
from meterline.kernel.quantity import format_number
from meterline.web.auth import Principal, requires
from meterline.web.json import ExactJSONResponse
from meterline.web.media import choose

_JSON, _CSV = "application/json", "text/csv"
_MANY_ROWS = 2_000
_NEEDS_QUOTES = re.compile(r'[,"\r\n]')
_ONE_FILTER = "A text (equal), a list of texts (one of them), or an object of operators."


class QueryBody(BaseModel):
    """A query as a body; the same as the parameters of GET, and operators in filters."""

    model_config = ConfigDict(extra="forbid")

    begin: StrictStr | None = Field(
        None, alias="from", json_schema_extra={"format": "date-time"}, description="Included."
    )
    end: StrictStr | None = Field(
        None, alias="to", json_schema_extra={"format": "date-time"}, description="Not included."
    )
    window_size: StrictStr | None = Field(
        None,
        alias="windowSize",
        json_schema_extra={"enum": ["MINUTE", "HOUR", "DAY", "MONTH", None]},
    )
    window_time_zone: StrictStr | None = Field(None, alias="windowTimeZone")
    subject: list[StrictStr] | None = None
    group_by: list[StrictStr] | None = Field(None, alias="groupBy")
    filter_group_by: dict[str, Any] | None = Field(
        None, alias="filterGroupBy", description=_ONE_FILTER
    )
    advanced_filters: dict[str, Any] | None = Field(
        None, alias="advancedMeterGroupByFilters", description=_ONE_FILTER
    )
    filter_customer_id: list[StrictStr] | None = Field(
        None, alias="filterCustomerId", max_length=0, description="There are no customers here."
    )
    client_id: StrictStr | None = Field(None, alias="clientId", description="Ignored.")


class RowView(BaseModel):
    """The value of one window and group."""

    value: float = Field(description="A JSON number with every digit.")
    windowStart: str = Field(json_schema_extra={"format": "date-time"})
    windowEnd: str = Field(json_schema_extra={"format": "date-time"})
    subject: str | None
    groupBy: dict[str, str]


class QueryView(BaseModel):
    """The answer to a query."""

    model_config = ConfigDict(populate_by_name=True)

    begin: str | None = Field(None, alias="from", json_schema_extra={"format": "date-time"})
    end: str | None = Field(None, alias="to", json_schema_extra={"format": "date-time"})
    windowSize: str | None = None
    data: list[RowView]


Reader = Annotated[Principal, Depends(requires("read"))]
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": QueryView, "content": {_CSV: {"schema": {"type": "string"}}}}
}


def router(service: MeterService) -> APIRouter:
    """Meter queries over a service."""
    api = APIRouter(
        prefix="/api/v1/meters", tags=["Meters"], default_response_class=ExactJSONResponse
    )

    @api.get(
        "/{id_or_slug}/query",
        responses=ANSWERS,
        openapi_extra={"parameters": query_parameters(service.limits.max_subjects)},
    )
    async def query_meter(
        principal: Reader, id_or_slug: Annotated[str, Path(examples=["tokens"])], request: Request
    ) -> Response:
        """Query a meter. `Accept: text/csv` answers CSV. Windows without events are left out."""
        params = request.query_params.multi_items()
        result = await service.query_from_params(principal.namespace, id_or_slug, params)
        return await _answer(result, request)

    @api.post("/{id_or_slug}/query", responses=ANSWERS)
    async def query_meter_post(
        principal: Reader,
        id_or_slug: Annotated[str, Path(examples=["tokens"])],
        request: Request,
        body: QueryBody | None = None,
    ) -> Response:
        """Query a meter, with operators in the filters:
        `$eq $ne $in $nin $like $nlike $ilike $nilike $gt $gte $lt $lte $and $or`."""
        given = _input(body or QueryBody())
        result = await service.query(principal.namespace, id_or_slug, given)
        return await _answer(result, request)

    return api


def render(result: QueryResult, request: Request) -> Response:
    """The answer in the form that the caller likes best."""
    if choose(request.headers.get("accept"), [_JSON, _CSV]) == _CSV:
        name = f'attachment; filename="{result.meter.slug}.csv"'
        return Response(as_csv(result), media_type=_CSV, headers={"content-disposition": name})
    return Response(as_json(result), media_type=_JSON)


async def _answer(result: QueryResult, request: Request) -> Response:
    if len(result.rows) > _MANY_ROWS:
        return await asyncio.to_thread(render, result, request)
    return render(result, request)


def as_json(result: QueryResult) -> bytes:
    """The JSON form: exact numbers; `from`, `to` and `windowSize` where they were given."""
    query = result.query
    head: dict[str, Any] = {}
    if query.range.begin is not None:
        head["from"] = format_instant(query.range.begin)
    if query.range.end is not None:
        head["to"] = format_instant(query.range.end)
    if query.window is not None:
        head["windowSize"] = query.window.value
    return msgspec.json.encode({**head, "data": [_row(row) for row in result.rows]})


def as_csv(result: QueryResult) -> str:
    """The CSV form: `window_start,window_end[,subject][,groupBy keys],value`.

    A text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    query = result.query
    subject = ["subject"] if query.by_subject else []
    lines = [",".join(["window_start", "window_end", *subject, *query.group_by, "value"])]
    for row in result.rows:
        cells = [_safe(row.subject or "")] if query.by_subject else []
        cells += [_safe(row.group_by[key]) for key in query.group_by]
        times = format_instant(row.window_start), format_instant(row.window_end)
        lines.append(",".join([*times, *cells, format_number(row.value)]))
    return "\n".join(lines) + "\n"


def _row(row: QueryRow) -> dict[str, Any]:
    return {
        "value": msgspec.Raw(format_number(row.value).encode()),
        "windowStart": format_instant(row.window_start),
        "windowEnd": format_instant(row.window_end),
        "subject": row.subject,
        "groupBy": row.group_by,
    }


def _safe(text: str) -> str:
    """A text as a cell. The csv module would leave a lone carriage return without quotes."""
    if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES.search(text) else text


def _input(body: QueryBody) -> QueryInput:
    if body.filter_group_by and body.advanced_filters:
        reason = "give filters in filterGroupBy or in advancedMeterGroupByFilters, not in both"
        raise ValidationError(reason, errors=[FieldError("filterGroupBy", reason)])
    return QueryInput(
        begin=body.begin,
        end=body.end,
        window_size=body.window_size,
        time_zone=body.window_time_zone,
        subjects=body.subject or (),
        group_by=body.group_by or (),
        filters=body.filter_group_by or body.advanced_filters or {},
    )
