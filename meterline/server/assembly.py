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

from aggregator.service import MeterService
from entitlements.services.rebuild import LiveUsage
from meterline.db.engine import Database
from meterline.db.keys import SqlKeyStore
from meterline.kernel.clock import Clock, system_clock
from meterline.server.app import AppParts, HotRoute, create_app
from meterline.server.balances import Balances, running_balances
from meterline.server.gateway import events_route, gateway
from meterline.server.health import Check, Readiness
from meterline.server.metering import meter_routers, meter_service, running_sink
from meterline.server.notified import notifications
from meterline.server.probes import (
    SinkGauges,
    database_check,
    log_check,
    sink_check,
    store_check,
)
from meterline.server.roles import parts_of
from meterline.server.settings import Settings
from meterline.server.stores import opened_stores
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


@dataclass(frozen=True, slots=True)
class Assembly:
    """A server's objects while it runs."""

    app: ASGIApp
    authenticator: Authenticator
    live_usage: LiveUsage
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


def print_line(line: str) -> None:
    """Write a line for people, at once."""
    print(line, flush=True)


@asynccontextmanager
async def assembled(
    settings: Settings, clock: Clock = system_clock, show: Callable[[str], None] = print_line
) -> AsyncIterator[Assembly]:
    """All of a server, started; stopped in order when the block ends."""
    parts_of(settings)
    surface = _Surface()
    async with AsyncExitStack() as stack:
        tracing = Tracing(settings.telemetry)
        stack.callback(tracing.close)
        stores = await stack.enter_async_context(opened_stores(settings))
        authenticator = _authenticator(settings, stores.database)
        surface.checks["log"] = log_check(settings.server.data_dir)
        surface.checks["database"] = database_check(stores.database)
        surface.checks["store"] = store_check(stores.engines.queries)
        sink = await stack.enter_async_context(
            running_sink(settings, stores, surface.registry, clock)
        )
        surface.checks["sink"] = sink_check(sink.status, stores.log.reader)
        gauges = SinkGauges(surface.registry, sink.status, stores.log.reader)
        surface.before_scrape.append(gauges.refresh)
        meters = await meter_service(settings, stores, sink, clock, show)
        usage = MeterUsage(meters, sink, stores.engines.queries)
        balances = await stack.enter_async_context(
            running_balances(settings, stores.database, usage, clock)
        )
        notified = await stack.enter_async_context(
            notifications(
                settings.notifications, stores.database, balances.plain, balances.live, clock
            )
        )
        ingest = stack.enter_context(
            gateway(settings.ingest, stores.log.writer, surface.registry, clock)
        )
        surface.hot_routes.append(events_route(ingest, authenticator))
        surface.routers.extend(
            [
                *balances.services.routers(),
                *notified,
                *meter_routers(meters, stores, sink, clock),
                *_access_routers(settings, stores.database, meters, balances, authenticator, clock),
            ]
        )
        surface.shortcuts.append(balances.shortcut(authenticator))
        app = create_app(_app_parts(settings, surface, authenticator, tracing))
        yield Assembly(app, authenticator, balances.live_usage(), sink.wait_visible)


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
    )


def _authenticator(settings: Settings, database: Database) -> Authenticator:
    limits = AuthLimits(remember_seconds=settings.auth.remember_seconds)
    return Authenticator(SqlKeyStore(database), limits)


def _access_routers(
    settings: Settings,
    database: Database,
    meters: MeterService,
    balances: Balances,
    authenticator: Authenticator,
    clock: Clock,
) -> list[APIRouter]:
    """Endpoints of portal tokens, of what they open, and of API keys."""
    given = settings.portal
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
        keys_api.router(KeyService(SqlKeyStore(database), clock, authenticator)),
    ]
