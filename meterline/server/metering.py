"""The parts that store events and that answer for meters: the sink, the meters, their series."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from aggregator.api import events as events_api
from aggregator.api import meters as meters_api
from aggregator.api import query as query_api
from aggregator.api import subjects as subjects_api
from aggregator.events import EventService
from aggregator.freshness import Freshness
from aggregator.metrics import SinkMetrics
from aggregator.query import QueryLimits
from aggregator.registry import SeriesRegistry
from aggregator.service import MeterService
from aggregator.sink import Sink
from aggregator.stores.meters import SqlMeterStore
from aggregator.subjects import SubjectService
from aggregator.upkeep import Erasure
from aggregator.worker import SinkOptions
from meterline.kernel.access import DEFAULT_NAMESPACE
from meterline.kernel.clock import Clock
from meterline.kernel.errors import ConflictError
from meterline.server.declared import declared_specs, describe_changes, plan_changes
from meterline.server.notified import NotifyingFollower, NotifyingMeterUse
from meterline.server.sections import QuerySettings
from meterline.server.settings import Settings
from meterline.server.stores import Stores
from meterline.server.usage import MeterUsage

logger = logging.getLogger(__name__)

_TRIES = 5

Purge = Callable[[str, str], Awaitable[None]]
"""Erases a subject of a namespace."""


@dataclass(frozen=True, slots=True)
class Metering:
    """What answers for meters, with or without a sink in this process."""

    meters: MeterService
    registry: SeriesRegistry
    freshness: Freshness
    erasure: Erasure
    usage: MeterUsage

    def routers(self, stores: Stores, clock: Clock, purge: Purge) -> list[APIRouter]:
        """Endpoints of meters, their queries, stored events and subjects.

        `purge` is for what else is known of a subject. It comes before its usage is erased: what
        that has spent must not come back for a moment.
        """

        async def purge_all(namespace: str, subject: str) -> None:
            await purge(namespace, subject)
            await self.erasure.purge(namespace, subject)

        events = EventService(self.meters, self.registry, stores.store.queries)
        return [
            events_api.router(events),
            meters_api.router(self.meters),
            query_api.router(self.meters),
            subjects_api.router(SubjectService(stores.database, clock, purge_all)),
        ]


@asynccontextmanager
async def running_sink(
    settings: Settings, stores: Stores, metrics: CollectorRegistry, clock: Clock
) -> AsyncIterator[Sink]:
    """The sink, at work until the block ends."""
    sink = Sink(
        stores.reader,
        stores.store.sink,
        stores.database,
        clock,
        SinkMetrics(metrics),
        SinkOptions(
            **settings.sink.model_dump(),
            redo_within_plans=stores.store.sink.layout.deduplication_window // 2,
        ),
        NotifyingFollower(clock),
    )
    await sink.start(await SqlMeterStore(stores.database).all())
    try:
        yield sink
    finally:
        await sink.stop()


@asynccontextmanager
async def running_metering(
    settings: Settings,
    stores: Stores,
    sink: Sink | None,
    clock: Clock,
    show: Callable[[str], None],
) -> AsyncIterator[Metering]:
    """The meters, as they are declared; what that changes is shown.

    Without a sink in this process, the database tells how far those of others are.
    """
    if sink is None:
        registry = SeriesRegistry(stores.database, stores.store.sink, clock)
        await registry.start(await SqlMeterStore(stores.database).all())
        freshness = Freshness(stores.database, stores.reader, clock)
        erasure = Erasure(stores.database, freshness, clock)
    else:
        registry, freshness, erasure = sink.registry, sink.freshness, sink.erasure
    meters = _meter_service(settings, stores, registry, clock)
    await _reconcile(meters, settings, show)
    usage = MeterUsage(meters, registry, freshness, stores.store.queries)
    stopping = asyncio.Event()
    watching = asyncio.create_task(registry.watch(stopping))
    try:
        yield Metering(meters, registry, freshness, erasure, usage)
    finally:
        stopping.set()
        await watching


def _meter_service(
    settings: Settings, stores: Stores, registry: SeriesRegistry, clock: Clock
) -> MeterService:
    use = NotifyingMeterUse(stores.database, clock)
    return MeterService(
        SqlMeterStore(stores.database),
        registry,
        stores.store.queries,
        clock,
        _query_limits(settings.query),
        in_use=use,
        on_change=use.on_change,
    )


async def _reconcile(meters: MeterService, settings: Settings, show: Callable[[str], None]) -> None:
    """Make the declared meters true, and show what that changes."""
    specs = declared_specs(settings.meters)
    for attempt in range(_TRIES):
        changes = plan_changes(specs, await meters.list(DEFAULT_NAMESPACE))
        if not changes:
            return
        try:
            await meters.reconcile(DEFAULT_NAMESPACE, specs)
        except ConflictError:
            # Another server of the deployment starts, and makes the same meters.
            if attempt + 1 == _TRIES:
                raise
            continue
        for line in describe_changes(changes):
            show(line)
        logger.info("meters are now as declared", extra={"changed": [c.spec.slug for c in changes]})
        return


def _query_limits(settings: QuerySettings) -> QueryLimits:
    return QueryLimits(
        max_subjects=settings.max_subjects,
        max_windows=settings.max_windows,
        max_rows=settings.max_rows,
        max_listed=settings.max_listed,
    )
