"""The parts that store events and that answer for meters: the sink, the meters, their series."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from aggregator.api import events as events_api
from aggregator.api import meters as meters_api
from aggregator.api import query as query_api
from aggregator.api import subjects as subjects_api
from aggregator.events import EventService
from aggregator.metrics import SinkMetrics
from aggregator.query import QueryLimits
from aggregator.service import MeterService
from aggregator.sink import Sink
from aggregator.stores.meters import SqlMeterStore
from aggregator.subjects import SubjectService
from aggregator.worker import SinkOptions
from meterline.kernel.access import DEFAULT_NAMESPACE
from meterline.kernel.clock import Clock
from meterline.server.declared import declared_specs, describe_changes, plan_changes
from meterline.server.notified import NotifyingFollower, NotifyingMeterUse
from meterline.server.sections import QuerySettings
from meterline.server.settings import Settings
from meterline.server.stores import Stores

logger = logging.getLogger(__name__)


@asynccontextmanager
async def running_sink(
    settings: Settings, stores: Stores, registry: CollectorRegistry, clock: Clock
) -> AsyncIterator[Sink]:
    """The sink, at work until the block ends."""
    sink = Sink(
        stores.log.reader,
        stores.engines.sink,
        stores.database,
        clock,
        SinkMetrics(registry),
        SinkOptions(**settings.sink.model_dump()),
        NotifyingFollower(clock),
    )
    await sink.start(await SqlMeterStore(stores.database).all())
    try:
        yield sink
    finally:
        await sink.stop()


async def meter_service(
    settings: Settings, stores: Stores, sink: Sink, clock: Clock, show: Callable[[str], None]
) -> MeterService:
    """The meters, as they are declared; what that changes is shown."""
    use = NotifyingMeterUse(stores.database, clock)
    meters = MeterService(
        SqlMeterStore(stores.database),
        sink.registry,
        stores.engines.queries,
        clock,
        _query_limits(settings.query),
        in_use=use,
        on_change=use.on_change,
    )
    await _reconcile(meters, settings, show)
    return meters


def meter_routers(
    meters: MeterService, stores: Stores, sink: Sink, clock: Clock
) -> list[APIRouter]:
    """Endpoints of meters, their queries, stored events and subjects."""
    return [
        events_api.router(EventService(meters, sink.registry, stores.engines.queries)),
        meters_api.router(meters),
        query_api.router(meters),
        subjects_api.router(SubjectService(stores.database, clock, sink.purge)),
    ]


async def _reconcile(meters: MeterService, settings: Settings, show: Callable[[str], None]) -> None:
    """Make the declared meters true, and show what that changes."""
    specs = declared_specs(settings.meters)
    changes = plan_changes(specs, await meters.list(DEFAULT_NAMESPACE))
    if not changes:
        return
    for line in describe_changes(changes):
        show(line)
    await meters.reconcile(DEFAULT_NAMESPACE, specs)
    logger.info("meters are now as declared", extra={"changed": [c.spec.slug for c in changes]})


def _query_limits(settings: QuerySettings) -> QueryLimits:
    return QueryLimits(
        max_subjects=settings.max_subjects,
        max_windows=settings.max_windows,
        max_rows=settings.max_rows,
        max_listed=settings.max_listed,
    )
