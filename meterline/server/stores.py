"""Opens what keeps data, as the settings say. Nothing above knows what is behind a port.

The order is the assembly's: the log first, as it is what a second server on the same folder fails
on, and closed last.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from aggregator.stores.clickhouse import ClickHouseEngine, ClickHouseOptions
from aggregator.stores.engine import Engine
from aggregator.stores.layout import Layout
from aggregator.stores.migrations import migrate as migrate_engine
from ingest.limits import IngestLimits
from meterline.db.engine import Database
from meterline.db.limits import DatabaseLimits
from meterline.db.locks import Gate
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.port import LogReader, LogWriter
from meterline.eventlog.sqlite import SqliteLog, SqliteLogOptions
from meterline.kernel.errors import UnavailableError
from meterline.server.log import Log
from meterline.server.moving.marker import refuse_half_moved
from meterline.server.patience import patiently
from meterline.server.roles import Parts, parts_of
from meterline.server.settings import Settings

logger = logging.getLogger(__name__)

_PROBE = b"\0" * 16_384
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
class Engines:
    """The event store."""

    queries: Engine
    """For queries, with their limits."""
    sink: Engine
    """For the sink, which no query may keep waiting."""


@dataclass(frozen=True, slots=True)
class Stores:
    """What keeps data, open, as far as a role needs it."""

    log: Log
    database: Database
    engines: Engines | None

    @property
    def writer(self) -> LogWriter:
        """The end of the log that takes events."""
        assert self.log.writer is not None
        return self.log.writer

    @property
    def reader(self) -> LogReader:
        """The end of the log that gives events."""
        assert self.log.reader is not None
        return self.log.reader

    @property
    def store(self) -> Engines:
        """The event store."""
        assert self.engines is not None
        return self.engines


@asynccontextmanager
async def opened_stores(settings: Settings) -> AsyncIterator[Stores]:
    """What the role needs, at the newest schemas. Waits for services that are not there yet."""
    parts = parts_of(settings)
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(opened_log(settings, parts))
        database = await stack.enter_async_context(opened_database(settings))
        await stack.enter_async_context(alone_with_database(settings, database))
        await refuse_half_moved(database)
        engines = None
        if parts.stores or parts.answers:
            engines = await stack.enter_async_context(opened_engines(settings))
            await migrate_store(settings, engines.sink, database)
        yield Stores(log, database, engines)


@asynccontextmanager
async def alone_with_database(settings: Settings, database: Database) -> AsyncIterator[None]:
    """Keep others with a log or a store of their own away from a database that could be shared.

    Its positions are those of one log. `UnavailableError` when another process has it.
    """
    embedded = "embedded" in (settings.eventlog.kind, settings.store.kind)
    if settings.database.is_embedded or not embedded:
        yield
        return
    async with Gate(database).ownership("embedded log and store") as owned:
        if not owned:
            raise UnavailableError(
                "another server with an embedded log or store uses this database; several servers"
                " share one only with eventlog.kind=kafka and store.kind=clickhouse"
            )
        yield


@asynccontextmanager
async def opened_log(settings: Settings, parts: Parts) -> AsyncIterator[Log]:
    """The event log."""
    if settings.eventlog.kind == "kafka":
        # Here, so that an embedded server need not load it.
        from meterline.server.kafka import opened_kafka

        options, limits = kafka_options(settings), ingest_limits(settings)
        wait = settings.server.start_wait_seconds
        async with opened_kafka(options, limits, parts, wait) as log:
            yield log
        return
    data = DataDir(settings.server.data_dir)
    embedded = SqliteLogOptions(
        max_bytes=settings.eventlog.max_bytes,
        compression_level=settings.eventlog.compression_level,
    )
    file = await asyncio.to_thread(SqliteLog, data.event_log, embedded)
    try:
        yield Log(file, file, partial(asyncio.to_thread, probe_folder, data.path))
    finally:
        await file.close()


def probe_folder(folder: Path) -> None:
    """`UnavailableError` unless the folder's disk takes bytes, and is not full or read-only."""
    file = folder / ".probe"
    try:
        file.write_bytes(_PROBE)
        file.unlink()
    except OSError as error:
        raise UnavailableError(f"the data folder cannot be written: {error.strerror}") from None


@asynccontextmanager
async def opened_engines(settings: Settings) -> AsyncIterator[Engines]:
    """The event store, as it is."""
    where: Path | ClickHouseOptions = DataDir(settings.server.data_dir).engine
    if settings.store.kind == "clickhouse":
        where = clickhouse_options(settings)
    query = settings.query
    queries = await asyncio.to_thread(
        ClickHouseEngine,
        where,
        handles=query.concurrency,
        query_timeout_seconds=query.timeout_seconds,
        query_memory_bytes=query.memory_bytes,
    )
    try:
        sink = await asyncio.to_thread(ClickHouseEngine, where, handles=_SINK_HANDLES)
        try:
            yield Engines(queries, sink)
        finally:
            await sink.close()
    finally:
        await queries.close()


async def migrate_store(settings: Settings, engine: Engine, database: Database) -> list[str]:
    """Bring the event store to its newest schema; answers the names of what was missing."""

    async def migrate_once() -> list[str]:
        lock = Gate(database).mutex("event store migrations")
        return await migrate_engine(engine, lock)

    applied = await patiently(migrate_once, settings.server.start_wait_seconds)
    for name in applied:
        logger.info("migrated the event store", extra={"version": name})
    return applied


@asynccontextmanager
async def opened_database(settings: Settings) -> AsyncIterator[Database]:
    """The relational database, at the newest schema."""
    database = database_of(settings)
    try:
        for version in await patiently(database.migrate, settings.server.start_wait_seconds):
            logger.info("migrated the database", extra={"version": version})
        yield database
    finally:
        await database.close()


def database_of(settings: Settings) -> Database:
    """The relational database, as it is. Connects at the first use; `close` it."""
    return Database.open(database_url(settings), database_limits(settings))


def database_url(settings: Settings) -> str:
    """Where the relational database is; it can hold a password."""
    given = settings.database.url
    return given.get_secret_value() if given else DataDir(settings.server.data_dir).database_url


def database_limits(settings: Settings) -> DatabaseLimits:
    """How this process uses the database; its connections name its role."""
    given = settings.database.model_dump(exclude={"url"})
    return DatabaseLimits(**given, application_name=f"meterline {settings.server.role}")


def ingest_limits(settings: Settings) -> IngestLimits:
    """What an event may be; the same for gateways and sinks."""
    return IngestLimits(**settings.ingest.model_dump())


def kafka_options(settings: Settings) -> KafkaOptions:
    """How Kafka is used."""
    given = settings.kafka
    password = given.sasl_password.get_secret_value() if given.sasl_password else None
    return KafkaOptions(**given.model_dump(exclude={"sasl_password"}), sasl_password=password)


def clickhouse_options(settings: Settings) -> ClickHouseOptions:
    """How ClickHouse is used."""
    given = settings.clickhouse.model_dump(exclude={"password"})
    layout = Layout(**{one.name: given.pop(one.name) for one in fields(Layout)})
    password = settings.clickhouse.password.get_secret_value()
    return ClickHouseOptions(**given, password=password, layout=layout)
