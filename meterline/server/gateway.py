"""The part that takes events: from HTTP into the event log."""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry

from ingest.api import IngestEndpoint
from ingest.limits import IngestLimits
from ingest.metrics import IngestMetrics
from ingest.openapi import operation
from ingest.service import IngestService
from meterline.eventlog.port import LogWriter
from meterline.kernel.clock import Clock
from meterline.server.app import HotRoute
from meterline.web.auth import Authenticator


@contextmanager
def gateway(
    limits: IngestLimits, log: LogWriter, registry: CollectorRegistry, clock: Clock
) -> Iterator[IngestService]:
    """The service that makes events durable, until the block ends."""
    metrics = IngestMetrics()
    registry.register(metrics)
    service = IngestService(log, clock, limits, metrics)
    try:
        yield service
    finally:
        service.close()


def events_route(ingest: IngestService, authenticator: Authenticator) -> HotRoute:
    """`POST /api/v1/events`."""
    return HotRoute(
        "POST",
        "/api/v1/events",
        IngestEndpoint(ingest, authenticator),
        {**operation(ingest.limits), "tags": ["Events"]},
    )
