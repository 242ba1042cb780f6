"""The composition root: settings become objects here, and nowhere else.

`assembled` opens everything in the order in which it is needed and closes it in the reverse, so
that a stop loses nothing: requests are over, then the sink finishes what it planned, then the
stores close, and last the log. Which parts there are is the role's matter (`roles.py`).
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from fastapi import APIRouter
from prometheus_client import CollectorRegistry

from aggregator.freshness import Freshness
from aggregator.service import MeterService
from aggregator.sink import Sink
from ingest.service import IngestService
from meterline.db.keys import SqlKeyStore
from meterline.kernel.clock import Clock, system_clock
from meterline.server.access import authenticator_of, make_first_key
from meterline.server.app import AppParts, HotRoute, create_app
from meterline.server.balances import Balances, running_balances
from meterline.server.gateway import events_route, gateway
from meterline.server.health import Check, Readiness
from meterline.server.kit import KitParts, key_limits, running_kit
from meterline.server.metering import Metering, running_metering, running_sink
from meterline.server.notified import notifications
from meterline.server.probes import (
    FreshnessGauge,
    SinkGauges,
    database_check,
    freshness_check,
    log_check,
    sink_check,
    store_check,
)
from meterline.server.roles import parts_of
from meterline.server.settings import Settings
from meterline.server.stores import Stores, ingest_limits, opened_stores
from meterline.server.telemetry import Tracing, new_registry
from meterline.web import keys as keys_api
from meterline.web.asgi import ASGIApp
from meterline.web.auth import Authenticator
from meterline.web.keys import KeyService
from portal import api as portal_api
from portal import entitlements as portal_entitlements
from portal.entitlements import PortalEntitlements
from portal.store import SqlTokenStore
from portal.tokens import PortalLimits, PortalService


@dataclass(frozen=True, slots=True)
class Assembly:
    """A server's objects while it runs."""

    app: ASGIApp
    authenticator: Authenticator
    needs_keys: bool
    """Whether it shows anything that is somebody's."""
    balances: Balances | None
    """Where the role has them."""
    caught_up: Callable[[float], Awaitable[bool]]
    """Waits so many seconds for all accepted events to be stored; False when they are not."""


@dataclass(frozen=True, slots=True)
class _Surface:
    """What the parts of a process show to the outside; each part adds its own."""

    registry: CollectorRegistry = field(default_factory=new_registry)
    hot_routes: list[HotRoute] = field(default_factory=list)
    routers: list[APIRouter] = field(default_factory=list)
    shortcuts: list[Callable[[ASGIApp], ASGIApp]] = field(default_factory=list)
    checks: dict[str, Check] = field(default_factory=dict)
    before_scrape: list[Callable[[], Awaitable[None]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Base:
    """What every part is made from."""

    settings: Settings
    stores: Stores
    authenticator: Authenticator
    clock: Clock
    surface: _Surface
    stack: AsyncExitStack
    """Closed in the reverse of the order in which the parts were opened."""


def print_line(line: str) -> None:
    """Write a line for people, at once."""
    print(line, flush=True)


@asynccontextmanager
async def assembled(
    settings: Settings, clock: Clock = system_clock, show: Callable[[str], None] = print_line
) -> AsyncIterator[Assembly]:
    """All of a server that its role has, started; stopped in order when the block ends."""
    parts = parts_of(settings)
    async with AsyncExitStack() as stack:
        tracing = Tracing(settings.telemetry)
        stack.callback(tracing.close)
        stores = await stack.enter_async_context(opened_stores(settings))
        await make_first_key(settings.auth, stores.database, clock)
        authenticator = authenticator_of(settings.auth, stores.database)
        base = _Base(settings, stores, authenticator, clock, _Surface(), stack)
        _show_stores(base)
        sink = await _add_sink(base) if parts.stores else None
        ingest = _add_gateway(base) if parts.ingests else None
        balances: Balances | None = None
        caught_up: Callable[[float], Awaitable[bool]] = _always
        if parts.answers:
            assert ingest is not None
            balances, metering = await _add_answers(base, sink, ingest, show)
            caught_up = metering.freshness.wait_visible
        app = create_app(_app_parts(settings, base.surface, authenticator, tracing))
        yield Assembly(app, authenticator, parts.ingests, balances, caught_up)


async def _always(_seconds: float) -> bool:
    """A gateway has nothing to wait for."""
    return True


def _show_stores(base: _Base) -> None:
    stores, surface = base.stores, base.surface
    surface.checks["log"] = log_check(stores.log)
    surface.checks["database"] = database_check(stores.database)
    if stores.engines is not None:
        surface.checks["store"] = store_check(stores.engines.queries)
    if stores.log.metrics is not None:
        surface.registry.register(stores.log.metrics)


async def _add_sink(base: _Base) -> Sink:
    surface, reader = base.surface, base.stores.reader
    running = running_sink(base.settings, base.stores, surface.registry, base.clock)
    sink = await base.stack.enter_async_context(running)
    surface.checks["sink"] = sink_check(sink.status, reader)
    surface.before_scrape.append(SinkGauges(surface.registry, sink.status, reader).refresh)
    return sink


def _add_gateway(base: _Base) -> IngestService:
    limits = ingest_limits(base.settings)
    taking = gateway(limits, base.stores.writer, base.surface.registry, base.clock)
    ingest = base.stack.enter_context(taking)
    base.surface.hot_routes.append(events_route(ingest, base.authenticator))
    return ingest


async def _add_answers(
    base: _Base, sink: Sink | None, ingest: IngestService, show: Callable[[str], None]
) -> tuple[Balances, Metering]:
    """Everything that answers, and what works in the background."""
    settings, database, clock = base.settings, base.stores.database, base.clock
    surface, enter = base.surface, base.stack.enter_async_context
    metering = await enter(running_metering(settings, base.stores, sink, clock, show))
    _show_freshness(base, metering.freshness, sink)
    balances = await enter(running_balances(settings, database, metering.usage, clock))
    notified = await enter(
        notifications(settings.notifications, database, balances.plain, balances.live, clock)
    )
    parts = KitParts(settings, base.stores, metering, balances, ingest, base.authenticator, clock)
    kit = await enter(running_kit(parts))
    surface.hot_routes.extend(kit.hot_routes)
    surface.routers.extend(
        [
            *kit.routers,
            *balances.services.routers(),
            *notified,
            *metering.routers(base.stores, clock, kit.erase),
            *_access_routers(base, metering.meters, balances),
        ]
    )
    surface.shortcuts.extend([balances.shortcut(base.authenticator), *kit.shortcuts])
    return balances, metering


def _show_freshness(base: _Base, freshness: Freshness, sink: Sink | None) -> None:
    surface, clock = base.surface, base.clock
    surface.before_scrape.append(
        FreshnessGauge(surface.registry, freshness.visible_until, clock).refresh
    )
    if sink is None:
        stalled_after = base.settings.sink.stalled_after_seconds
        surface.checks["freshness"] = freshness_check(freshness.visible_until, stalled_after, clock)


def _app_parts(
    settings: Settings, surface: _Surface, authenticator: Authenticator, tracing: Tracing
) -> AppParts:
    return AppParts(
        authenticator=authenticator,
        hot_routes=surface.hot_routes,
        routers=surface.routers,
        readiness=Readiness(surface.checks),
        registry=surface.registry,
        serve_metrics=settings.telemetry.metrics,
        tracer=tracing.tracer,
        before_scrape=surface.before_scrape,
        portal_origins=settings.portal.allowed_origins,
        shortcuts=surface.shortcuts,
        keys=key_limits(settings) if surface.shortcuts else None,
    )


def _access_routers(base: _Base, meters: MeterService, balances: Balances) -> list[APIRouter]:
    """Endpoints of portal tokens, of what they open, and of API keys."""
    given, database, clock = base.settings.portal, base.stores.database, base.clock
    limits = PortalLimits(
        default_lifetime_seconds=given.default_lifetime_seconds,
        max_lifetime_seconds=given.max_lifetime_seconds,
    )
    secret = given.secret.get_secret_value() if given.secret else None
    portal = PortalService(SqlTokenStore(database), clock, secret, limits)
    services = balances.services
    return [
        portal_api.tokens_router(portal, meters, clock),
        portal_api.query_router(portal, meters),
        portal_entitlements.router(
            portal, PortalEntitlements(services.entitlements, services.values, clock)
        ),
        keys_api.router(KeyService(SqlKeyStore(database), clock, base.authenticator)),
    ]
