"""`GET /api/v1/events`: what was stored, newest first."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, cast

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from aggregator.events import EventFilter, EventService, ListedEvent, Position
from aggregator.query import parse_range
from meterline.kernel.errors import FieldError, ValidationError
from meterline.kernel.instants import format_instant
from meterline.kernel.meters import is_storable
from meterline.web.auth import Principal, requires
from meterline.web.json import ExactJSONResponse
from meterline.web.paging import decode_cursor, encode_cursor

MAX_LIMIT = 100
_MAX_TEXT = 4_096


class EventView(BaseModel):
    """A stored event."""

    event: dict[str, Any] = Field(description="The CloudEvent; `data` as it was sent.")
    ingestedAt: datetime
    storedAt: datetime
    validationError: str | None = Field(None, description="Why a meter could not use it.")


class _Texts(BaseModel):
    """The filters that are equal to a text, or part of one."""

    id: str | None = Field(None, max_length=_MAX_TEXT, description="Part of the id.")
    subject: str | None = Field(None, max_length=_MAX_TEXT)
    type: str | None = Field(None, max_length=_MAX_TEXT)
    source: str | None = Field(None, max_length=_MAX_TEXT)


class _Times(BaseModel):
    begin: str | None = Field(
        None, alias="from", json_schema_extra={"format": "date-time"}, description="Included."
    )
    end: str | None = Field(
        None, alias="to", json_schema_extra={"format": "date-time"}, description="Not included."
    )
    ingested_begin: str | None = Field(
        None, alias="ingestedAtFrom", json_schema_extra={"format": "date-time"}
    )
    ingested_end: str | None = Field(
        None, alias="ingestedAtTo", json_schema_extra={"format": "date-time"}
    )


class EventParameters(_Times, _Texts):
    """The parameters of the listing."""

    has_error: bool | None = Field(
        None, alias="hasError", description="Only events with, or without, a validation error."
    )
    limit: int = Field(MAX_LIMIT, ge=1, le=MAX_LIMIT)
    cursor: str | None = Field(None, description="From the `X-Next-Cursor` header.")


Reader = Annotated[Principal, Depends(requires("read"))]


def router(service: EventService) -> APIRouter:
    """The listing over a service."""
    api = APIRouter(
        prefix="/api/v1/events", tags=["Events"], default_response_class=ExactJSONResponse
    )

    @api.get("", responses={200: {"model": list[EventView]}})
    async def list_events(
        principal: Reader, request: Request, given: Annotated[EventParameters, Query()]
    ) -> Response:
        """List stored events, newest first by their time. When there may be more, the header
        `X-Next-Cursor` holds the cursor of the next page, and `Link` its address."""
        found = await service.list(principal.namespace, _filter(given), given.limit)
        headers = {}
        if len(found) == given.limit:
            cursor = encode_cursor(found[-1].position)
            url = request.url.include_query_params(limit=given.limit, cursor=cursor)
            headers = {
                "x-next-cursor": cursor,
                "link": f'<{url.path}?{url.query}>; rel="next"',
            }
        return Response(_encode(found), media_type="application/json", headers=headers)

    return api


def _filter(given: EventParameters) -> EventFilter:
    before = None
    if given.cursor is not None:
        before = cast(Position, decode_cursor(given.cursor, [int, int, int, int]))
        if not _in_range(before):
            raise _fault("cursor", "is not one that this server gave")
    texts = {name: getattr(given, name) for name in _Texts.model_fields}
    for name, text in texts.items():
        if text is not None and not is_storable(text):
            raise _fault(name, "holds NUL or half a surrogate pair")
    return EventFilter(
        times=parse_range(given.begin, given.end),
        ingested=parse_range(
            given.ingested_begin, given.ingested_end, ("ingestedAtFrom", "ingestedAtTo")
        ),
        event_id=given.id,
        subject=given.subject,
        type=given.type,
        source=given.source,
        has_error=given.has_error,
        before=before,
    )


def _in_range(position: Position) -> bool:
    micros, part, off, idx = position
    return abs(micros) < 2**62 and 0 <= part < 2**16 and 0 <= off < 2**64 and 0 <= idx < 2**32


def _encode(found: Sequence[ListedEvent]) -> bytes:
    return msgspec.json.encode([_view(one) for one in found])


def _view(one: ListedEvent) -> dict[str, Any]:
    view: dict[str, Any] = {
        "event": msgspec.Raw(one.event),
        "ingestedAt": format_instant(one.ingested_at),
        "storedAt": format_instant(one.stored_at),
    }
    if one.validation_error is not None:
        view["validationError"] = one.validation_error
    return view


def _fault(where: str, reason: str) -> ValidationError:
    return ValidationError(f"{where}: {reason}", errors=[FieldError(where, reason)])
