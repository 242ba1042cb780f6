"""Opens what keeps data, as the settings say. Nothing above knows what is behind a port.

The order is the assembly's: the log first, as it is what a second server on the same folder fails
on, and closed last.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.stores.engine import Engine
from meterline.db.engine import Database
from meterline.db.limits import DatabaseLimits
from meterline.eventlog.port import LogReader, LogWriter
from meterline.eventlog.sqlite import SqliteLog, SqliteLogOptions
from meterline.server.settings import Settings

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
class Log:
    """Both ends of the event log; the embedded one is both itself."""

    writer: LogWriter
    reader: LogReader


@dataclass(frozen=True, slots=True)
class Engines:
    """The event store."""

    queries: Engine
    """For queries, with their limits."""
    sink: Engine
    """For the sink, which no query may keep waiting."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Everything that keeps data, open."""

    log: Log
    database: Database
    engines: Engines


def database_url(settings: Settings) -> str:
    """Where the relational database is; it can hold a password."""
    given = settings.database.url
    return given.get_secret_value() if given else DataDir(settings.server.data_dir).database_url


@asynccontextmanager
async def opened_stores(settings: Settings) -> AsyncIterator[Stores]:
    """The log, the database and the event store; the relational schema is the newest."""
    async with (
        opened_log(settings) as log,
        opened_database(settings) as database,
        opened_engines(settings) as engines,
    ):
        yield Stores(log, database, engines)


@asynccontextmanager
async def opened_log(settings: Settings) -> AsyncIterator[Log]:
    """The event log."""
    data = DataDir(settings.server.data_dir)
    options = SqliteLogOptions(
        max_bytes=settings.eventlog.max_bytes,
        compression_level=settings.eventlog.compression_level,
    )
    log = await asyncio.to_thread(SqliteLog, data.event_log, options)
    try:
        yield Log(log, log)
    finally:
        await log.close()


@asynccontextmanager
async def opened_engines(settings: Settings) -> AsyncIterator[Engines]:
    """The event store."""
    path = DataDir(settings.server.data_dir).engine
    query = settings.query
    queries = await asyncio.to_thread(
        ClickHouseEngine,
        path,
        handles=query.concurrency,
        query_timeout_seconds=query.timeout_seconds,
        query_memory_bytes=query.memory_bytes,
    )
    try:
        sink = await asyncio.to_thread(ClickHouseEngine, path, handles=_SINK_HANDLES)
        try:
            yield Engines(queries, sink)
        finally:
            await sink.close()
    finally:
        await queries.close()


@asynccontextmanager
async def opened_database(settings: Settings) -> AsyncIterator[Database]:
    """The relational database, at the newest schema."""
    database = database_of(settings)
    try:
        for version in await database.migrate():
            logger.info("migrated the database", extra={"version": version})
        yield database
    finally:
        await database.close()


def database_of(settings: Settings) -> Database:
    """The relational database, as it is. Connects at the first use; `close` it."""
    return Database.open(database_url(settings), database_limits(settings))


def database_limits(settings: Settings) -> DatabaseLimits:
    """How this process uses the database; its connections name its role."""
    given = settings.database.model_dump(exclude={"url"})
    return DatabaseLimits(**given, application_name=f"meterline {settings.server.role}")
