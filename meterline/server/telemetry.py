"""What the server tells about each request: a metric always, a span when tracing is configured.

One pure ASGI layer around everything. It sits on the hot path, so it looks metrics up in plain
dictionaries and does nothing per request that it does not need.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate, count
from time import perf_counter
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from meterline.kernel.clock import system_clock
from meterline.kernel.errors import ValidationError
from meterline.kernel.ids import new_ulid
from meterline.server.sections import TelemetrySettings
from meterline.version import __version__
from meterline.web.asgi import ASGIApp, Message, Receive, Scope, Send, header
from meterline.web.problem import request_id_of

_LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


def new_registry() -> CollectorRegistry:
    """A registry of our own, with the figures of the process."""
    # A second series beside each counter that nobody reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    info = Gauge("meterline_info", "The version that runs.", ["version"], registry=registry)
    info.labels(__version__).set(1)
    return registry


class RequestTallies:
    """How many requests there were, and how long they took; Prometheus collects it.

    Its own counters would lock for each figure of each request; all of these are one thread's.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[tuple[str, str, int], float] = defaultdict(float)
        self._buckets: defaultdict[tuple[str, str, int], list[int]] = defaultdict(
            lambda: [0] * (len(_LATENCY_BUCKETS) + 1)
        )

    def note(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        key = (route, method, status)
        self._buckets[key][bisect_left(_LATENCY_BUCKETS, seconds)] += 1
        self._seconds[key] += seconds

    def collect(self) -> Iterator[Metric]:
        """All of it."""
        requests = CounterMetricFamily(
            "meterline_http_requests",
            "Requests answered, by route and status.",
            labels=["route", "method", "status"],
        )
        seconds = HistogramMetricFamily(
            "meterline_http_request_seconds",
            "Time from the request's head to the end of its answer, by route.",
            labels=["route", "method"],
        )
        names = [*(str(float(bound)) for bound in _LATENCY_BUCKETS), "+Inf"]
        by_route: dict[tuple[str, str], tuple[list[int], float]] = {}
        for (route, method, status), counts in self._buckets.items():
            requests.add_metric([route, method, str(status)], sum(counts))
            before, took = by_route.get((route, method), ([0] * len(names), 0.0))
            together = [one + other for one, other in zip(before, counts, strict=True)]
            took += self._seconds[route, method, status]
            by_route[route, method] = (together, took)
        for (route, method), (counts, took) in by_route.items():
            buckets = list(zip(names, accumulate(counts), strict=True))
            seconds.add_metric([route, method], buckets, took)
        yield requests
        yield seconds


class RequestObserver:
    """Counts and times requests by route, and puts the request id on each response."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry, tracer: Any = None) -> None:
        self._app = app
        self._tracer = tracer
        self._tallies = RequestTallies()
        registry.register(self._tallies)
        self._open = Gauge(
            "meterline_http_requests_in_flight", "Requests being answered.", registry=registry
        )
        self._in_flight = 0
        self._open.set_function(lambda: self._in_flight)
        self._ids = new_ulid(system_clock())
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app on one request and note what came of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0
        id_header = (b"x-request-id", self._request_id(scope).encode("ascii"))

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], id_header]
            await send(message)

        started = perf_counter()
        self._in_flight += 1
        try:
            if self._tracer is None:
                await self._app(scope, receive, noting_send)
            else:
                await self._traced(scope, receive, noting_send)
        finally:
            self._in_flight -= 1
            # No status: the client left before there was an answer (499, as nginx calls it).
            seconds = perf_counter() - started
            self._tallies.note(route_of(scope), _method_of(scope), status or 499, seconds)

    def _request_id(self, scope: Scope) -> str:
        """The caller's id, else ours: numbered, as an identifier for each would cost much."""
        if header(scope, b"x-request-id") is None:
            scope["meterline.request_id"] = f"{self._ids}-{next(self._numbers)}"
        return request_id_of(scope)

    async def _traced(self, scope: Scope, receive: Receive, send: Send) -> None:
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind

        carrier = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        with self._tracer.start_as_current_span(
            f"{_method_of(scope)} {scope['path']}", context=extract(carrier), kind=SpanKind.SERVER
        ) as span:
            span.set_attribute("http.request.method", _method_of(scope))
            span.set_attribute("meterline.request_id", request_id_of(scope))

            async def tracing_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                await send(message)

            await self._app(scope, receive, tracing_send)
            span.set_attribute("http.route", route_of(scope))
            span.update_name(f"{_method_of(scope)} {route_of(scope)}")


def route_of(scope: Scope) -> str:
    """The route's template, so that metrics do not grow with ids; `unmatched` when none fits."""
    known = scope.get("meterline.route")
    if known is not None:
        return str(known)
    return str(getattr(scope.get("route"), "path", "unmatched"))


def _method_of(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else "OTHER"


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class Tracing:
    """OpenTelemetry, when an endpoint is configured: the tracer, and its orderly end."""

    def __init__(self, settings: TelemetrySettings) -> None:
        self.tracer: Any = None
        self._provider: Any = None
        if settings.otlp_endpoint is None:
            return
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
        except ImportError:
            raise ValidationError(
                "telemetry.otlp_endpoint is set, but OpenTelemetry is not installed:"
                " install meterline[telemetry]"
            ) from None
        self._provider = TracerProvider(
            resource=Resource.create(
                {"service.name": settings.service_name, "service.version": __version__}
            ),
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
        )
        exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self.tracer = self._provider.get_tracer("meterline")

    def close(self) -> None:
        """Send what is left."""
        if self._provider is not None:
            self._provider.shutdown()
