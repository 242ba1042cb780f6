"""The application around the services: dispatching, operations, errors, metrics, OpenAPI."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends
from prometheus_client import CollectorRegistry

from meterline.kernel.errors import NotFoundError
from meterline.server.app import AppParts, HotRoute, create_app
from meterline.server.health import CheckResult, Readiness
from meterline.server.telemetry import new_registry
from meterline.web.asgi import Receive, Scope, Send, send_response
from meterline.web.auth import Authenticator, Principal, requires
from tests.support.api import assert_problem, client_of


class NoKeys:
    async def find(self, prefix: str) -> None:
        return None

    async def any_exists(self) -> bool:
        return False


class Figures:
    """What the tests turn."""

    def __init__(self) -> None:
        self.ok = True
        self.registry: CollectorRegistry = new_registry()

    async def check(self) -> CheckResult:
        return CheckResult(self.ok, {"lagEvents": 0})


def things() -> APIRouter:
    router = APIRouter(prefix="/api/v1/things", tags=["things"])

    @router.get("/{name}")
    async def thing(
        name: str, caller: Annotated[Principal, Depends(requires("read"))]
    ) -> dict[str, str]:
        if name == "broken":
            raise RuntimeError("a secret of the inside")
        if name == "missing":
            raise NotFoundError("there is no such thing")
        return {"name": name, "namespace": caller.namespace}

    @router.put("/{name}")
    async def replace(name: str) -> None:
        return

    return router


async def hot(scope: Scope, receive: Receive, send: Send) -> None:
    await send_response(send, 204, [])


@pytest.fixture
def figures() -> Figures:
    return Figures()


@pytest.fixture
async def client(figures: Figures) -> AsyncIterator[httpx.AsyncClient]:
    operation = {"summary": "Store events", "security": [{"ApiKey": []}]}
    app = create_app(
        AppParts(
            authenticator=Authenticator(NoKeys()),
            readiness=Readiness({"sink": figures.check}),
            registry=figures.registry,
            hot_routes=[HotRoute("POST", "/api/v1/events", hot, operation)],
            routers=[things()],
        )
    )
    async with client_of(app) as client:
        yield client


async def test_the_hot_route_is_answered_before_fastapi(client: httpx.AsyncClient) -> None:
    assert (await client.post("/api/v1/events", content=b"[]")).status_code == 204
    assert_problem(await client.put("/api/v1/events", content=b"[]"), 405)


async def test_a_wrong_method_is_told_every_right_one(client: httpx.AsyncClient) -> None:
    response = await client.patch("/api/v1/things/a")
    assert_problem(response, 405)
    assert response.headers["allow"] == "GET, PUT"
    assert (await client.get("/api/v1/events")).headers["allow"] == "POST"
    assert (await client.post("/healthz")).headers["allow"] == "GET"


async def test_health_and_readiness(client: httpx.AsyncClient, figures: Figures) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    figures.ok = False
    stalled = await client.get("/readyz")
    assert stalled.status_code == 503
    assert stalled.headers["content-type"] == "application/json"
    assert stalled.json()["checks"]["sink"] == {"status": "failed", "lagEvents": 0}


@pytest.mark.parametrize("path", ["/nothing", "/api/v1/things", "/api/v1/events/", "/docs/x"])
async def test_a_path_that_is_not_there_is_a_problem(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.get(path), 404)


async def test_an_unexpected_error_tells_nothing(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = await client.get("/api/v1/things/broken")
    body = assert_problem(response, 500)
    assert "secret" not in response.text
    request_id = response.headers["x-request-id"]
    assert body["instance"] == f"urn:request:{request_id}"
    assert request_id in caplog.text


async def test_the_callers_request_id_comes_back(client: httpx.AsyncClient) -> None:
    async def answered(sent: str) -> str:
        response = await client.get("/healthz", headers={"x-request-id": sent})
        return response.headers["x-request-id"]

    assert await answered("abc-1") == "abc-1"
    assert await answered("no spaces, please") != "no spaces, please"


async def test_requests_are_counted_by_route_not_by_path(
    client: httpx.AsyncClient, figures: Figures
) -> None:
    for path in ("/api/v1/things/a", "/api/v1/things/b", "/api/v1/things/missing", "/x", "/y"):
        await client.get(path)
    await client.post("/api/v1/events", content=b"[]")

    def count(route: str, status: str, method: str = "GET") -> float | None:
        labels = {"route": route, "status": status, "method": method}
        return figures.registry.get_sample_value("meterline_http_requests_total", labels)

    assert count("/api/v1/things/{name}", "200") == 2
    assert count("/api/v1/things/{name}", "404") == 1
    assert count("unmatched", "404") == 2
    assert count("/api/v1/events", "204", "POST") == 1


async def test_metrics_are_in_prometheus_text(client: httpx.AsyncClient) -> None:
    await client.get("/healthz")
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert 'meterline_http_requests_total{method="GET",route="/healthz"' in response.text
    assert "meterline_info" in response.text
    assert "process_resident_memory_bytes" in response.text


async def test_the_docs_page_needs_nothing_from_elsewhere(client: httpx.AsyncClient) -> None:
    page = await client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert (await client.get("/")).headers["location"] == "/docs"


async def test_openapi_holds_every_route_and_true_errors(client: httpx.AsyncClient) -> None:
    document: dict[str, Any] = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/api/v1/events",
        "/api/v1/things/{name}",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
    }
    events = document["paths"]["/api/v1/events"]["post"]
    assert events["summary"] == "Store events"
    assert {"204", "400", "401", "403", "default"} <= set(events["responses"])
    thing = document["paths"]["/api/v1/things/{name}"]["get"]
    assert "422" not in thing["responses"]
    assert list(thing["responses"]["default"]["content"]) == ["application/problem+json"]
    assert {} in thing["security"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_the_observer_costs_little(figures: Figures) -> None:
    """A loose bound against something slow on the hot path; it measures a few microseconds."""
    from time import perf_counter

    app = create_app(
        AppParts(
            Authenticator(NoKeys()),
            Readiness({}),
            figures.registry,
            hot_routes=[HotRoute("POST", "/api/v1/events", hot, {})],
        )
    )

    async def timed(target: Callable[..., Awaitable[None]]) -> float:
        best = 1.0
        for _ in range(5):
            started = perf_counter()
            for _ in range(500):
                scope = {
                    "type": "http", "method": "POST", "path": "/api/v1/events", "headers": [],
                }  # fmt: skip
                await target(scope, _nothing, _ignore)
            best = min(best, (perf_counter() - started) / 500)
        return best

    overhead = await timed(app) - await timed(hot)
    assert overhead < 100e-6


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _ignore(message: object) -> None:
    return None
