"""What is done to a deployment's data without serving: migrating it, and proving that it agrees."""

import asyncio
from collections.abc import AsyncIterator, Callable

from aggregator.checkup import check_store
from aggregator.stores import series as stored
from aggregator.stores import state
from entitlements.services.rebuild import Compared
from entitlements.services.warming import Warmer
from meterline.kernel.clock import system_clock
from meterline.kernel.errors import UnavailableError, ValidationError
from meterline.server.access import make_first_key
from meterline.server.assembly import Assembly, assembled
from meterline.server.balances import Balances
from meterline.server.doctor import Finding
from meterline.server.patience import patiently
from meterline.server.roles import Parts
from meterline.server.settings import Settings
from meterline.server.stores import (
    database_of,
    migrate_store,
    opened_engines,
    opened_log,
    opened_stores,
)

_CATCH_UP_SECONDS = 600.0
_NEEDS_ANSWERS = "live usage belongs to a role that answers"


async def migrate(settings: Settings) -> list[str]:
    """Bring every backend to this version; answers what was missing.

    An embedded server must not be running. Servers of a deployment may: each step waits for the
    others, and a schema always serves the version before it as well.
    """
    applied = await _migrate_database(settings)
    if settings.eventlog.kind == "kafka":
        async with opened_log(settings, Parts(ingests=False, stores=False, answers=False)):
            """Opening it makes its topics."""
    database = database_of(settings)
    try:
        async with opened_engines(settings) as engines:
            names = await migrate_store(settings, engines.sink, database)
        await make_first_key(settings.auth, database, system_clock)
    finally:
        await database.close()
    return applied + [f"event store {name}" for name in names]


async def _migrate_database(settings: Settings) -> list[str]:
    database = database_of(settings)
    try:
        wait = settings.server.start_wait_seconds
        return [f"database {version}" for version in await patiently(database.migrate, wait)]
    finally:
        await database.close()


async def diagnose_store(settings: Settings) -> list[Finding]:
    """Whether everything stored agrees with everything else. The server must not be running."""
    async with opened_stores(settings) as stores:
        async with stores.database.read() as conn:
            series = [one.series for one in await stored.load_series(conn)]
            unfinished = await state.load_plans(conn)
        if unfinished:
            text = "the last server was cut off; start one to finish what it began, then check"
            return [Finding("event store", "warning", text)]
        wrong = await check_store(stores.store.queries, series)
    if not wrong:
        return [Finding("event store", "ok", f"its tables agree, over {len(series)} series")]
    return [Finding("event store", "failed", f"{one.what}: {one.found}") for one in wrong]


async def verify_usage(settings: Settings) -> AsyncIterator[Compared]:
    """Live usage beside the event store's, row by row. The server must not be running."""
    async with assembled(settings, show=_say_nothing) as server:
        await _catch_up(server)
        async for one in _balances(server).live_usage().compare():
            yield one


async def rebuild_usage(settings: Settings, tell: Callable[[int], None]) -> None:
    """Make live usage anew from the event store. The server must not be running."""
    async with assembled(settings, show=_say_nothing) as server:
        await _catch_up(server)
        await _balances(server).live_usage().rebuild(tell)


async def warm_usage(settings: Settings) -> int:
    """Calculate the live rows that do not hold; answers how many. Other servers may be running."""
    role = settings.server.model_copy(update={"role": "api"})
    settings = settings.model_copy(update={"server": role})
    async with assembled(settings, show=_say_nothing) as server:
        balances = _balances(server)
        warmer = Warmer(balances.means.database, balances.live, system_clock)
        return await warmer.warm_all(asyncio.Event())


async def _catch_up(server: Assembly) -> None:
    if not await server.caught_up(_CATCH_UP_SECONDS):
        raise UnavailableError("accepted events are not stored yet: let the server finish first")


def _balances(server: Assembly) -> Balances:
    if server.balances is None:
        raise ValidationError(f"{_NEEDS_ANSWERS}: server.role is all or api")
    return server.balances


def _say_nothing(_line: str) -> None:
    """The declared meters are not what was asked about."""
