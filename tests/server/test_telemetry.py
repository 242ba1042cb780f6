import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from meterline.kernel.errors import ValidationError
from meterline.server.sections import TelemetrySettings
from meterline.server.telemetry import RequestObserver, Tracing, new_registry
from meterline.web.asgi import Receive, Scope, Send, send_response
from tests.support.api import client_of


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    scope["meterline.route"] = "/things/{id}"
    await send_response(send, 201, [])


async def test_a_request_is_a_span_named_by_its_route() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    observer = RequestObserver(app, new_registry(), provider.get_tracer("test"))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with client_of(observer) as client:
        response = await client.get(
            "/things/7", headers={"traceparent": parent, "authorization": "Bearer hidden"}
        )
    (span,) = exporter.get_finished_spans()
    assert span.name == "GET /things/{id}"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == parent.split("-")[1]
    assert span.attributes == {
        "http.request.method": "GET",
        "http.response.status_code": 201,
        "http.route": "/things/{id}",
        "meterline.request_id": response.headers["x-request-id"],
    }
    provider.shutdown()


def test_tracing_is_off_until_an_endpoint_is_configured() -> None:
    tracing = Tracing(TelemetrySettings())
    assert tracing.tracer is None
    tracing.close()


def test_tracing_is_set_up_from_the_settings() -> None:
    tracing = Tracing(TelemetrySettings(otlp_endpoint="http://127.0.0.1:9/v1/traces"))
    assert tracing.tracer is not None
    tracing.close()


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ValidationError, match=r"meterline\[telemetry\]"):
        Tracing(TelemetrySettings(otlp_endpoint="http://127.0.0.1:9/v1/traces"))


async def test_a_client_that_leaves_is_counted_as_499() -> None:
    async def gone(scope: Scope, receive: Receive, send: Send) -> None:
        return

    registry = new_registry()
    observer = RequestObserver(gone, registry)
    scope: Scope = {"type": "http", "method": "BREW", "path": "/x", "headers": []}

    async def nothing() -> dict[str, object]:
        return {}

    async def ignore(_: object) -> None:
        return

    await observer(scope, nothing, ignore)
    labels = {"route": "unmatched", "method": "OTHER", "status": "499"}
    assert registry.get_sample_value("meterline_http_requests_total", labels) == 1
