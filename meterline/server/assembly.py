"""The composition root: settings become objects here, and nowhere else.

`assembled` opens everything in the order in which it is needed and closes it in the reverse, so
that a stop loses nothing: requests are over, then the sink finishes what it planned, then the log
and the stores close.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from meterline.db.engine import Database
from meterline.db.keys import SqlKeyStore
from meterline.eventlog.sqlite import SqliteLog, SqliteLogOptions
from meterline.kernel.clock import Clock, system_clock
from meterline.server.app import AppParts, create_app
from meterline.server.health import Check, CheckResult, Readiness
from meterline.server.settings import Settings
from meterline.server.telemetry import Tracing, new_registry
from meterline.web.asgi import ASGIApp
from meterline.web.auth import Authenticator, AuthLimits

logger = logging.getLogger(__name__)


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
class Assembly:
    """A server's objects while it runs."""

    app: ASGIApp
    authenticator: Authenticator


@asynccontextmanager
async def assembled(settings: Settings, clock: Clock = system_clock) -> AsyncIterator[Assembly]:
    """All of a server, started; stopped in order when the block ends."""
    data = DataDir(settings.server.data_dir)
    registry = new_registry()
    async with AsyncExitStack() as stack:
        tracing = Tracing(settings.telemetry)
        stack.callback(tracing.close)
        log = SqliteLog(data.event_log, _log_options(settings))
        stack.push_async_callback(log.close)
        database = await open_database(data)
        stack.push_async_callback(database.close)
        authenticator = Authenticator(
            SqlKeyStore(database), AuthLimits(remember_seconds=settings.auth.remember_seconds)
        )
        parts = AppParts(
            authenticator=authenticator,
            readiness=Readiness({"database": _database_check(database)}),
            registry=registry,
            serve_metrics=settings.telemetry.metrics,
            tracer=tracing.tracer,
        )
        yield Assembly(create_app(parts), authenticator)


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


async def migrate_all(data: DataDir) -> list[str]:
    """Bring every store of a data folder, which no server may use meanwhile, to its schema."""
    log = SqliteLog(data.event_log)
    try:
        database = Database.open(data.database_url)
        try:
            return [f"database {version}" for version in await database.migrate()]
        finally:
            await database.close()
    finally:
        await log.close()


def _log_options(settings: Settings) -> SqliteLogOptions:
    return SqliteLogOptions(
        max_bytes=settings.eventlog.max_bytes,
        compression_level=settings.eventlog.compression_level,
    )


def _database_check(database: Database) -> Check:
    async def check() -> CheckResult:
        async with database.read() as conn:
            await conn.exec_driver_sql("SELECT 1")
        return CheckResult(True, {})

    return check
