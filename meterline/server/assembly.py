"""The composition root: settings become objects here, and nowhere else.

`assembled` opens everything in the order in which it is needed and closes it in the reverse, so
that a stop loses nothing: requests are over, then the sink finishes what it planned, then the
stores close, and last the log.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

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
from aggregator.sink import migrate as migrate_engine
from aggregator.stores.chdb import ChdbEngine
from aggregator.stores.meters import SqlMeterStore
from aggregator.subjects import SubjectService
from aggregator.worker import SinkOptions
from entitlements.api.fast import FastValues
from entitlements.limits import EntitlementLimits
from entitlements.notifications.hooks import CheckedLiveValues
from entitlements.services.live import LiveEntitlements
from entitlements.services.means import Means
from entitlements.services.rebuild import LiveUsage
from entitlements.services.values import ValueService
from entitlements.services.warming import Warmer
from ingest.api import IngestEndpoint
from ingest.limits import IngestLimits
from ingest.metrics import IngestMetrics
from ingest.openapi import operation
from ingest.service import IngestService
from meterline.db.engine import Database
from meterline.db.hot import HotReads
from meterline.db.keys import SqlKeyStore
from meterline.eventlog.sqlite import SqliteLog, SqliteLogOptions
from meterline.kernel.access import DEFAULT_NAMESPACE
from meterline.kernel.clock import Clock, system_clock
from meterline.server.app import AppParts, HotRoute, create_app
from meterline.server.declared import declared_specs, describe_changes, plan_changes
from meterline.server.entitled import EntitlementServices
from meterline.server.health import Readiness
from meterline.server.notified import NotifyingFollower, NotifyingMeterUse, notifications
from meterline.server.probes import (
    SinkGauges,
    database_check,
    log_check,
    sink_check,
    store_check,
)
from meterline.server.sections import QuerySettings
from meterline.server.settings import Settings
from meterline.server.telemetry import Tracing, new_registry
from meterline.server.usage import MeterUsage
from meterline.web import keys as keys_api
from meterline.web.asgi import ASGIApp
from meterline.web.auth import Authenticator, AuthLimits
from meterline.web.keys import KeyService
from portal import api as portal_api
from portal import entitlements as portal_entitlements
from portal.entitlements import PortalEntitlements
from portal.store import SqlTokenStore
from portal.tokens import PortalLimits, PortalService

logger = logging.getLogger(__name__)

_SINK_HANDLES = 6
"""A step of the sink runs up to four statements side by side; a back-fill runs one more."""


@dataclass(frozen=True, slots=True)
class DataDir:
    """Where things are in the data folder."""

    path: Path

    @property
    def database(self) -> Path:
        return self.path / "meterline.db"

    @property
    def event_log(self) -> Path:
        return self.path / "events.log"

    @property
    def engine(self) -> Path:
        return self.path / "clickhouse"

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.database.absolute()}"


@dataclass(frozen=True, slots=True)
class Stores:
    """What keeps data, open."""

    log: SqliteLog
    database: Database
    database_url: str
    engine: ChdbEngine
    """For queries, with their limits."""
    sink_engine: ChdbEngine
    """For the sink, which no query may keep waiting."""


@dataclass(frozen=True, slots=True)
class Assembly:
    """A server's objects while it runs."""

    app: ASGIApp
    authenticator: Authenticator
    live_usage: LiveUsage
    caught_up: Callable[[float], Awaitable[bool]]
    """Waits so many seconds for all accepted events to be stored; False when they are not."""


def print_line(line: str) -> None:
    """Write a line for people, at once."""
    print(line, flush=True)


@asynccontextmanager
async def assembled(
    settings: Settings, clock: Clock = system_clock, show: Callable[[str], None] = print_line
) -> AsyncIterator[Assembly]:
    """All of a server, started; stopped in order when the block ends."""
    registry = new_registry()
    async with AsyncExitStack() as stack:
        tracing = Tracing(settings.telemetry)
        stack.callback(tracing.close)
        stores = await stack.enter_async_context(opened_stores(settings))
        sink, meters = await _metering(settings, stores, registry, clock, show, stack)
        balances = _balances(settings, stores, sink, meters, clock, stack)
        await stack.enter_async_context(warming(stores.database, balances.live, clock))
        notified = await stack.enter_async_context(
            notifications(
                settings.notifications, stores.database, balances.plain, balances.live, clock
            )
        )
        authenticator = Authenticator(
            SqlKeyStore(stores.database),
            AuthLimits(remember_seconds=settings.auth.remember_seconds),
        )
        ingest_metrics = IngestMetrics()
        registry.register(ingest_metrics)
        limits = IngestLimits(**settings.ingest.model_dump())
        ingest = IngestService(stores.log, clock, limits, ingest_metrics)
        stack.callback(ingest.close)
        parts = AppParts(
            authenticator=authenticator,
            hot_routes=[_events_route(ingest, authenticator)],
            routers=[
                *balances.services.routers(),
                *notified,
                *_routers(settings, stores, sink, meters, authenticator, clock, balances.services),
            ],
            readiness=_readiness(settings, stores, sink),
            registry=registry,
            serve_metrics=settings.telemetry.metrics,
            tracer=tracing.tracer,
            before_scrape=[SinkGauges(registry, sink.status, stores.log).refresh],
            portal_origins=settings.portal.allowed_origins,
            shortcuts=[balances.shortcut(authenticator)],
        )
        live_usage = LiveUsage(
            stores.database, balances.live, balances.plain, balances.usage, clock
        )
        yield Assembly(create_app(parts), authenticator, live_usage, sink.wait_visible)


async def _metering(
    settings: Settings,
    stores: Stores,
    registry: CollectorRegistry,
    clock: Clock,
    show: Callable[[str], None],
    stack: AsyncExitStack,
) -> tuple[Sink, MeterService]:
    """The sink, running, and the meters, as they are declared."""
    sink = Sink(
        stores.log,
        stores.sink_engine,
        stores.database,
        clock,
        SinkMetrics(registry),
        SinkOptions(**settings.sink.model_dump()),
        NotifyingFollower(clock),
    )
    meter_store = SqlMeterStore(stores.database)
    await sink.start(await meter_store.all())
    stack.push_async_callback(sink.stop)
    use = NotifyingMeterUse(stores.database, clock)
    meters = MeterService(
        meter_store,
        sink.registry,
        stores.engine,
        clock,
        _query_limits(settings.query),
        in_use=use,
        on_change=use.on_change,
    )
    await _reconcile(meters, settings, show)
    return sink, meters


@asynccontextmanager
async def warming(database: Database, live: LiveEntitlements, clock: Clock) -> AsyncIterator[None]:
    """Keeps live rows warm while the block runs."""
    stopping = asyncio.Event()
    task = asyncio.create_task(Warmer(database, live, clock).run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await task


@dataclass(frozen=True, slots=True)
class _Balances:
    """What answers for entitlements. `plain` calculates; `live` knows, or lets it calculate."""

    means: Means
    services: EntitlementServices
    plain: ValueService
    live: LiveEntitlements
    usage: MeterUsage
    hot: HotReads

    def shortcut(self, authenticator: Authenticator) -> Callable[[ASGIApp], ASGIApp]:
        """What answers hot reads before the framework does."""
        return lambda app: FastValues(self.hot, self.usage, self.means, authenticator, app)


def _balances(
    settings: Settings,
    stores: Stores,
    sink: Sink,
    meters: MeterService,
    clock: Clock,
    stack: AsyncExitStack,
) -> _Balances:
    usage = MeterUsage(meters, sink, stores.engine)
    means = Means(
        stores.database,
        usage,
        clock,
        EntitlementLimits(**settings.entitlements.model_dump()),
    )
    hot = HotReads(stores.database_url)
    stack.callback(hot.close)
    plain = ValueService(means)
    live = LiveEntitlements(stores.database, hot, plain, usage)
    means = replace(means, live=CheckedLiveValues(live, clock))
    services = EntitlementServices.over(means)
    return _Balances(means, services, plain, live, usage, hot)


@asynccontextmanager
async def opened_stores(settings: Settings) -> AsyncIterator[Stores]:
    """The log, the database and the engine of a data folder, at their newest schemas.

    The log comes first: it is what a second server on the same folder fails on.
    """
    data = DataDir(settings.server.data_dir)
    query = settings.query
    async with AsyncExitStack() as stack:
        log = await asyncio.to_thread(SqliteLog, data.event_log, _log_options(settings))
        stack.push_async_callback(log.close)
        database = await open_database(data)
        stack.push_async_callback(database.close)
        engine = await asyncio.to_thread(
            ChdbEngine,
            data.engine,
            handles=query.concurrency,
            query_timeout_seconds=query.timeout_seconds,
            query_memory_bytes=query.memory_bytes,
        )
        stack.push_async_callback(engine.close)
        sink_engine = await asyncio.to_thread(ChdbEngine, data.engine, handles=_SINK_HANDLES)
        stack.push_async_callback(sink_engine.close)
        yield Stores(log, database, data.database_url, engine, sink_engine)


async def open_database(data: DataDir) -> Database:
    """The relational database of a data folder, at the newest schema."""
    database = Database.open(data.database_url)
    try:
        for version in await database.migrate():
            logger.info("migrated the database", extra={"version": version})
    except BaseException:
        await database.close()
        raise
    return database


async def migrate_all(settings: Settings) -> list[str]:
    """Bring every store of a data folder, which no server may use meanwhile, to its schema."""
    data = DataDir(settings.server.data_dir)
    database = Database.open(data.database_url)
    try:
        applied = [f"database {version}" for version in await database.migrate()]
    finally:
        await database.close()
    async with opened_stores(settings) as stores:
        await migrate_engine(stores.engine)
    return applied


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


def _events_route(ingest: IngestService, authenticator: Authenticator) -> HotRoute:
    endpoint = IngestEndpoint(ingest, authenticator)
    return HotRoute(
        "POST", "/api/v1/events", endpoint, {**operation(ingest.limits), "tags": ["Events"]}
    )


def _routers(
    settings: Settings,
    stores: Stores,
    sink: Sink,
    meters: MeterService,
    authenticator: Authenticator,
    clock: Clock,
    entitled: EntitlementServices,
) -> list[APIRouter]:
    """Every endpoint but the hot ones."""
    portal = PortalService(
        SqlTokenStore(stores.database),
        clock,
        settings.portal.secret.get_secret_value() if settings.portal.secret else None,
        PortalLimits(
            default_lifetime_seconds=settings.portal.default_lifetime_seconds,
            max_lifetime_seconds=settings.portal.max_lifetime_seconds,
        ),
    )
    return [
        events_api.router(EventService(meters, sink.registry, stores.engine)),
        meters_api.router(meters),
        query_api.router(meters),
        subjects_api.router(SubjectService(stores.database, clock, sink.purge)),
        portal_api.tokens_router(portal, meters, clock),
        portal_api.query_router(portal, meters),
        portal_entitlements.router(
            portal, PortalEntitlements(entitled.entitlements, entitled.values, clock)
        ),
        keys_api.router(KeyService(SqlKeyStore(stores.database), clock, authenticator)),
    ]


def _readiness(settings: Settings, stores: Stores, sink: Sink) -> Readiness:
    return Readiness(
        {
            "log": log_check(settings.server.data_dir),
            "database": database_check(stores.database),
            "store": store_check(stores.engine),
            "sink": sink_check(sink.status, stores.log),
        }
    )


def _log_options(settings: Settings) -> SqliteLogOptions:
    return SqliteLogOptions(
        max_bytes=settings.eventlog.max_bytes,
        compression_level=settings.eventlog.compression_level,
    )


def _query_limits(settings: QuerySettings) -> QueryLimits:
    return QueryLimits(
        max_subjects=settings.max_subjects,
        max_windows=settings.max_windows,
        max_rows=settings.max_rows,
        max_listed=settings.max_listed,
    )
