"""The HTTP API of holds.

Opening, confirming and releasing run before the framework (`FastHolds`), whose routing would cost
more than they do. The routes here are the same for paths that the fast way does not take, and for
the OpenAPI document.
"""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Depends, Query, Request, Response

from entitlements.api.parameters import Reader, ok
from entitlements.api.wire import Name, example_path
from entitlements.holds import wire
from entitlements.holds.model import Hold, Place, State
from entitlements.holds.service import HoldFilter, HoldRequest, HoldService, accepted
from entitlements.specs import fault
from meterline.kernel.errors import MeterlineError, UnsupportedMediaError
from meterline.web.asgi import (
    ASGIApp,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    send_problem,
    send_response,
)
from meterline.web.auth import Authenticator, Principal, requires
from meterline.web.idempotency import EffectId, effect_of
from meterline.web.json import ExactJSONResponse
from meterline.web.paging import decode_cursor, encode_cursor
from meterline.web.problem import request_id_of

_PREFIX = "/api/v1/subjects/"
_ROUTE = "/subjects/{subject:path}/entitlements/{entitlement}/holds"
_TOLD = "/api/v1/subjects/{subject}/entitlements/{entitlement}/holds"
_TYPE = (b"content-type", b"application/json")
MAX_BODY_BYTES = 262_144
Subject = Annotated[Name, example_path("customer-1")]
Entitled = Annotated[Name, example_path("credits")]
HoldName = Annotated[Name, example_path("hold-1")]

Spender = Annotated[Principal, Depends(requires("ingest"))]
"""Who may use up what others granted."""


@dataclass(frozen=True, slots=True)
class HoldApi:
    """What the endpoints do, whichever way a request comes."""

    service: HoldService

    async def open(self, place: Place, body: bytes, effect_id: str | None) -> Hold:
        """Open a hold of a body."""
        asked = wire.read_open(body)
        request = HoldRequest(
            place,
            wire.amount_of("amount", asked.amount, positive=True),
            effect_id if asked.id is None else asked.id,
            wire.optional_amount("ttlSeconds", asked.ttl_seconds),
            asked.on_excess,
            asked.metadata,
            model=asked.model,
        )
        return accepted(await self.service.request(request))

    async def close(self, place: Place, hold_id: str, action: str, body: bytes) -> Hold:
        """Confirm or release a hold."""
        if action == "confirm":
            amount = wire.read_confirm(body)
            return await self.service.confirm(place.namespace, hold_id, amount, place=place)
        wire.check_release(body)
        return await self.service.release(place.namespace, hold_id, place=place)


class FastHolds:
    """Answers the POSTs of holds; `otherwise` does the rest."""

    def __init__(self, api: HoldApi, authenticator: Authenticator, otherwise: ASGIApp) -> None:
        self._api = api
        self._authenticator = authenticator
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the others answer."""
        names = _names(scope)
        if names is None:
            await self._otherwise(scope, receive, send)
            return
        try:
            status, body = await self._answer(scope, receive, names)
        except MeterlineError as error:
            await send_problem(send, error, request_id_of(scope))
            return
        length = (b"content-length", b"%d" % len(body))
        await send_response(send, status, [_TYPE, length], body)

    async def _answer(self, scope: Scope, receive: Receive, names: list[str]) -> tuple[int, bytes]:
        principal = await _caller(self._authenticator, scope)
        body = await read_body(receive, MAX_BODY_BYTES)
        if body:
            _check_type(header(scope, b"content-type"))
        place = await self._api.service.place(principal.namespace, names[0], names[2])
        if len(names) == 4:
            scope["meterline.route"] = _TOLD
            hold = await self._api.open(place, body, effect_of(scope))
            return 201, wire.hold_bytes(hold)
        scope["meterline.route"] = f"{_TOLD}/{{id}}/{names[5]}"
        return 200, wire.hold_bytes(await self._api.close(place, names[4], names[5], body))


def router(api: HoldApi) -> APIRouter:
    """The endpoints of holds on an entitlement."""
    routes = APIRouter(prefix="/api/v1", tags=["Holds"], default_response_class=ExactJSONResponse)
    service = api.service

    async def closed(
        principal: Principal, request: Request, subject: str, entitlement: str, hold_id: str
    ) -> Response:
        body = await _body(request)
        place = await service.place(principal.namespace, subject, entitlement)
        action = request.url.path.rpartition("/")[2]
        return _response(200, await api.close(place, hold_id, action, body))

    @routes.post(
        _ROUTE + "/{hold_id}/confirm", **_documented(wire.ConfirmHoldBody, 200, required=False)
    )
    async def confirm_hold(
        principal: Spender,
        request: Request,
        subject: Subject,
        entitlement: Entitled,
        hold_id: HoldName,
        _effect: EffectId,
    ) -> Response:
        """Use what is held, or less of it, and give the rest back. It becomes a usage event."""
        return await closed(principal, request, subject, entitlement, hold_id)

    @routes.post(
        _ROUTE + "/{hold_id}/release", **_documented(wire.ReleaseHoldBody, 200, required=False)
    )
    async def release_hold(
        principal: Spender,
        request: Request,
        subject: Subject,
        entitlement: Entitled,
        hold_id: HoldName,
        _effect: EffectId,
    ) -> Response:
        """Give back all that is held."""
        return await closed(principal, request, subject, entitlement, hold_id)

    @routes.post(_ROUTE, **_documented(wire.OpenHoldBody, 201, 402))
    async def open_hold(
        principal: Spender,
        request: Request,
        subject: Subject,
        entitlement: Entitled,
        effect: EffectId,
    ) -> Response:
        """Set an amount aside, unless that is more than what is available (402)."""
        body = await _body(request)
        place = await service.place(principal.namespace, subject, entitlement)
        return _response(201, await api.open(place, body, effect))

    @routes.get(_ROUTE + "/{hold_id}", responses=ok(wire.HoldView))
    async def get_hold(
        principal: Reader, subject: Subject, entitlement: Entitled, hold_id: HoldName
    ) -> Response:
        """A hold, as it is now."""
        place = await service.place(principal.namespace, subject, entitlement)
        return _response(200, await service.get(principal.namespace, hold_id, place))

    @routes.get(_ROUTE, responses=ok(wire.HoldPage))
    async def list_holds(
        principal: Reader,
        subject: Subject,
        entitlement: Entitled,
        status: State | None = None,
        cursor: str | None = None,
        limit: Annotated[int | None, Query(ge=1, le=service.limits.max_page)] = None,
    ) -> Response:
        """The holds of an entitlement, the newest first."""
        place = await service.place(principal.namespace, subject, entitlement)
        wanted = HoldFilter(
            place.subject, place.feature_key, state=status, before=position_of(cursor)
        )
        found, following = await page_of(service, principal.namespace, wanted, limit)
        items = [wire.hold_json(one) for one in found]
        return ExactJSONResponse({"items": items, **following})

    return routes


async def page_of(
    service: HoldService, namespace: str, wanted: HoldFilter, limit: int | None
) -> tuple[list[Hold], dict[str, str]]:
    """Some holds, and the cursor of those that follow."""
    most = service.limits.max_page
    limit = service.limits.default_page if limit is None else limit
    if limit > most:
        raise fault("limit", f"must be at most {most}")
    found = list(await service.list(namespace, wanted, limit + 1))
    if len(found) <= limit:
        return found, {}
    last = found[limit - 1]
    return found[:limit], {"nextCursor": encode_cursor([last.created_at, last.id])}


def position_of(cursor: str | None) -> tuple[int, str] | None:
    """Where a listing goes on."""
    if cursor is None:
        return None
    created_at, hold_id = decode_cursor(cursor, [int, str])
    return int(created_at), str(hold_id)


def _response(status: int, hold: Hold) -> Response:
    return Response(wire.hold_bytes(hold), status, media_type="application/json")


async def _body(request: Request) -> bytes:
    body = await request.body()
    if body:
        _check_type(header(request.scope, b"content-type"))
    return body


def _check_type(kind: bytes | None) -> None:
    if kind is None or kind.partition(b";")[0].strip().lower() != b"application/json":
        raise UnsupportedMediaError("the body must be application/json")


async def _caller(authenticator: Authenticator, scope: Scope) -> Principal:
    sent = header(scope, b"authorization")
    principal = await authenticator.authenticate(None if sent is None else sent.decode("latin-1"))
    principal.require("ingest")
    return principal


def _names(scope: Scope) -> list[str] | None:
    """Subject, `entitlements`, entitlement, `holds`, and perhaps a hold and what to do with it."""
    if (
        scope["type"] != "http"
        or scope["method"] != "POST"
        or not scope["path"].startswith(_PREFIX)
        or scope["query_string"]
    ):
        return None
    parts: list[bytes] = scope["raw_path"].split(b"/")[4:]
    if len(parts) not in (4, 6) or parts[1] != b"entitlements" or parts[3] != b"holds":
        return None
    if len(parts) == 6 and parts[5] not in (b"confirm", b"release"):
        return None
    try:
        return [
            part.decode() if b"%" not in part else unquote_to_bytes(part).decode() for part in parts
        ]
    except UnicodeDecodeError:
        return None


def _documented(
    body: type[wire.Wire], status: int, *refusals: int, required: bool = True
) -> dict[str, Any]:
    """What OpenAPI says of a route whose body is read by hand."""
    content = {"application/json": {"schema": body.model_json_schema()}}
    return {
        "status_code": status,
        "responses": ok(wire.HoldView, status, *refusals),
        "openapi_extra": {"requestBody": {"required": required, "content": content}},
    }
