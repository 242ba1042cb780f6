"""The ASGI application: hot endpoints by a dictionary look-up, everything else through FastAPI."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import Field
from starlette.routing import Match

from meterline.kernel.errors import MeterlineError
from meterline.server.health import Readiness
from meterline.server.openapi import build_openapi
from meterline.server.telemetry import METHODS, RequestObserver
from meterline.web.asgi import ASGIApp, BodyLimit, ErrorBoundary, Message, Receive, Scope, Send
from meterline.web.auth import Authenticator
from meterline.web.idempotency import IdempotencyLimits
from meterline.web.json import ExactJSONResponse, encode
from meterline.web.problem import install_problem_handlers
from portal.cors import PortalCors

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SCRAPE_SECONDS = 3.0
_MAX_BODY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HotRoute:
    """An endpoint that runs before FastAPI, and what its OpenAPI operation says."""

    method: str
    path: str
    endpoint: ASGIApp
    operation: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AppParts:
    """What the application is made of; `assembly` fills it."""

    authenticator: Authenticator
    readiness: Readiness
    registry: CollectorRegistry
    hot_routes: Sequence[HotRoute] = ()
    routers: Sequence[APIRouter] = ()
    serve_metrics: bool = True
    tracer: Any = None
    before_scrape: Sequence[Callable[[], Awaitable[None]]] = field(default=())
    portal_origins: Sequence[str] = ("*",)
    keys: IdempotencyLimits | None = None
    """Of the header `Idempotency-Key`, when one of the shortcuts reads it."""
    shortcuts: Sequence[Callable[[ASGIApp], ASGIApp]] = ()
    """Applications around FastAPI that answer some of its routes faster, and pass on the rest."""


def create_app(parts: AppParts) -> ASGIApp:
    """The whole application, from the request's head to the last byte of its answer."""
    api = FastAPI(
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        default_response_class=ExactJSONResponse,
    )
    api.state.authenticator = parts.authenticator
    install_problem_handlers(api)
    for hot in parts.hot_routes:
        _document(api, hot)
    for router in parts.routers:
        api.include_router(router)
    api.include_router(_operations_router(parts, api))
    # The hot endpoints answer their own errors, and read their bodies within their own limits.
    others: ASGIApp = BodyLimit(AllowedMethods(api), _MAX_BODY_BYTES)
    for shortcut in parts.shortcuts:
        others = shortcut(others)
    others = ErrorBoundary(others)
    dispatcher = Dispatcher(parts.hot_routes, PortalCors(others, parts.portal_origins))
    return RequestObserver(dispatcher, parts.registry, parts.tracer)


class Dispatcher:
    """Sends hot endpoints their requests directly; FastAPI's routing costs more than they do."""

    def __init__(self, hot_routes: Sequence[HotRoute], otherwise: ASGIApp) -> None:
        self._hot = {(hot.path, hot.method): hot.endpoint for hot in hot_routes}
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the endpoint that fits."""
        if scope["type"] == "http":
            hot = self._hot.get((scope["path"], scope["method"]))
            if hot is not None:
                scope["meterline.route"] = scope["path"]
                await hot(scope, receive, send)
                return
        await self._otherwise(scope, receive, send)


class AllowedMethods:
    """Makes the `Allow` of a 405 name every method of the path; Starlette names one route's."""

    def __init__(self, api: FastAPI) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""

        async def correcting_send(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405:
                headers = [pair for pair in message["headers"] if pair[0] != b"allow"]
                allow = ", ".join(self._allowed(scope)).encode("ascii")
                message = {**message, "headers": [*headers, (b"allow", allow)]}
            await send(message)

        await self._api(scope, receive, correcting_send)

    def _allowed(self, scope: Scope) -> list[str]:
        return [
            method
            for method in METHODS
            if any(
                route.matches({**scope, "method": method})[0] is Match.FULL
                for route in self._api.routes
            )
        ]


def _document(api: FastAPI, hot: HotRoute) -> None:
    """Put a hot route into FastAPI's table, so that OpenAPI and 405 know of it."""

    async def unreachable() -> None:
        raise AssertionError("the dispatcher answers this route")

    api.add_api_route(
        hot.path, unreachable, methods=[hot.method], status_code=_success(hot),
        response_class=Response,
        openapi_extra=dict(hot.operation),
    )  # fmt: skip


def _success(hot: HotRoute) -> int:
    """The status of its answer when all goes well."""
    return min(
        (int(one) for one in hot.operation.get("responses", ()) if one[0] == "2"), default=204
    )


def _operations_router(parts: AppParts, api: FastAPI) -> APIRouter:
    router = APIRouter(tags=["Operations"])
    cached: list[bytes] = []

    @router.get("/healthz", summary="Whether the process lives")
    async def healthz() -> ExactJSONResponse:
        return ExactJSONResponse({"status": "ok"})

    @router.get(
        "/readyz",
        summary="Whether the server can do its work",
        responses={503: {"description": "A check failed.", "content": {"application/json": {}}}},
    )
    async def readyz(
        exclude: Annotated[
            list[Annotated[str, Field(min_length=1)]],
            Query(max_length=16, description="Leave this check out."),
        ] = [],  # noqa: B006
    ) -> ExactJSONResponse:
        ready, body = await parts.readiness.report(exclude)
        return ExactJSONResponse(body, status_code=200 if ready else 503)

    if parts.serve_metrics:

        @router.get(
            "/metrics",
            summary="Prometheus metrics",
            response_class=Response,
            responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        )
        async def metrics() -> Response:
            for refresh in parts.before_scrape:
                # What cannot be asked now is as it was; the others are told all the same.
                with suppress(MeterlineError, TimeoutError):
                    async with asyncio.timeout(_SCRAPE_SECONDS):
                        await refresh()
            return Response(generate_latest(parts.registry), media_type=_METRICS_TYPE)

    @router.get("/openapi.json", summary="This API as OpenAPI 3.1")
    async def openapi() -> Response:
        if not cached:
            cached.append(encode(build_openapi(api, parts.keys)))
        return Response(cached[0], media_type="application/json")

    @router.get("/docs", summary="This API for people", response_class=HTMLResponse)
    async def docs() -> HTMLResponse:
        page = Path(__file__).with_name("docs.html").read_text(encoding="utf-8")
        return HTMLResponse(page, headers={"content-security-policy": _DOCS_POLICY})

    @router.get("/", include_in_schema=False)
    async def root() -> RedirectResponse:
        return RedirectResponse("/docs")

    return router


_DOCS_POLICY = (
    "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline';"
    " style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
