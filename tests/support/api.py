"""FastAPI routers in a process of their own tests: the application's rules without its rest."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import APIRouter, FastAPI

from meterline.web.asgi import ASGIApp, BodyLimit, ErrorBoundary
from meterline.web.auth import Authenticator
from meterline.web.json import ExactJSONResponse
from meterline.web.problem import install_problem_handlers


def app_of(authenticator: Authenticator, *routers: APIRouter, max_body: int = 1 << 20) -> ASGIApp:
    api = FastAPI(default_response_class=ExactJSONResponse, redirect_slashes=False)
    api.state.authenticator = authenticator
    install_problem_handlers(api)
    for router in routers:
        api.include_router(router)
    return ErrorBoundary(BodyLimit(api, max_body))


@asynccontextmanager
async def client_of(app: ASGIApp, key: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://meterline.test", headers=headers
    ) as client:
        yield client


def assert_problem(response: httpx.Response, status: int) -> dict[str, object]:
    """The body of a problem that keeps to every promise about problems."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, object] = response.json()
    assert body["status"] == status
    assert body["type"] == "about:blank"
    assert str(body["instance"]).startswith("urn:request:")
    assert body["title"]
    return body
