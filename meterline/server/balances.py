"""The part that answers for entitlements, from live rows where it can."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from entitlements.api.fast import FastValues
from entitlements.limits import EntitlementLimits
from entitlements.notifications.hooks import CheckedLiveValues
from entitlements.services.live import LiveEntitlements
from entitlements.services.means import Means
from entitlements.services.rebuild import LiveUsage
from entitlements.services.values import ValueService
from entitlements.services.warming import Warmer
from meterline.db.engine import Database
from meterline.db.hot import HotReads, open_hot_reads
from meterline.kernel.clock import Clock
from meterline.server.entitled import EntitlementServices
from meterline.server.settings import Settings
from meterline.server.stores import database_limits, database_url
from meterline.server.usage import MeterUsage
from meterline.web.asgi import ASGIApp
from meterline.web.auth import Authenticator


@dataclass(frozen=True, slots=True)
class Balances:
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

    def live_usage(self) -> LiveUsage:
        """All live rows together, to be compared or made anew."""
        return LiveUsage(self.means.database, self.live, self.plain, self.usage, self.means.clock)


@asynccontextmanager
async def running_balances(
    settings: Settings, database: Database, usage: MeterUsage, clock: Clock
) -> AsyncIterator[Balances]:
    """The services of entitlements; live rows are kept warm until the block ends."""
    limits = EntitlementLimits(**settings.entitlements.model_dump())
    means = Means(database, usage, clock, limits)
    hot = open_hot_reads(database_url(settings), database_limits(settings))
    try:
        plain = ValueService(means)
        live = LiveEntitlements(database, hot, plain, usage)
        means = replace(means, live=CheckedLiveValues(live, clock))
        async with _warming(database, live, clock):
            yield Balances(means, EntitlementServices.over(means), plain, live, usage, hot)
    finally:
        await hot.close()


@asynccontextmanager
async def _warming(database: Database, live: LiveEntitlements, clock: Clock) -> AsyncIterator[None]:
    """Keeps live rows warm while the block runs."""
    stopping = asyncio.Event()
    task = asyncio.create_task(Warmer(database, live, clock).run(stopping))
    try:
        yield
    finally:
        stopping.set()
        await task
