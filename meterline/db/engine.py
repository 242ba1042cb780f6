"""The relational database: connections, transactions, and the schema at start.

SQLite has one writer at a time. Writers queue for the only connection of the writing pool and
start with `BEGIN IMMEDIATE`, so a transaction never fails half-way because another one wrote
first; readers have connections of their own and never wait for a writer (WAL). PostgreSQL is in
`meterline.db.postgres`.
"""

import asyncio
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeVar

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import PoolResetState

from meterline.db import migrations, postgres
from meterline.db.limits import DatabaseLimits
from meterline.db.onehop import OneHopSqlite, in_one_hop
from meterline.kernel.errors import NotFoundError, UnavailableError, ValidationError

__all__ = ["Database", "DatabaseLimits"]

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Database:
    """A relational database. Make one with `Database.open`, and `close` it at the end."""

    def __init__(
        self,
        writer: AsyncEngine,
        reader: AsyncEngine,
        patient: AsyncEngine | None = None,
        lines: postgres.PostgresLines | None = None,
    ) -> None:
        """`patient` has connections without time limits; the writer's will do where it has none.

        `lines` are PostgreSQL's, for `meterline.db.steps`.
        """
        self._writer = writer
        self._reader = reader
        self._patient = patient or writer
        self._lines = lines

    @classmethod
    def open(cls, url: str, limits: DatabaseLimits | None = None) -> Self:
        """The database at `url`. Connects at the first use.

        `sqlite:////path/to/file.db`, or `postgresql://user:password@host:port/name` with the
        parameters of libpq (`?sslmode=verify-full&sslrootcert=…`).
        """
        if postgres.is_postgres(url):
            limits = limits or DatabaseLimits()
            engines = postgres.engines(url, limits)
            lines = postgres.PostgresLines(url, limits)
            return cls(engines.writer, engines.reader, engines.patient, lines)
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            raise ValueError("the database is SQLite (sqlite://) or PostgreSQL (postgresql://)")
        return cls(*_sqlite_engines(parsed, limits or DatabaseLimits()))

    @property
    def dialect(self) -> str:
        """The kind of database: `sqlite` or `postgresql`."""
        return self._writer.dialect.name

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write: committed when the block ends, rolled back when it raises.

        Durable once the block has ended. On SQLite the block holds the only write lock; on
        PostgreSQL others write meanwhile, so what the block decides on must be locked
        (`with_for_update`) or guarded by a constraint. Raises `UnavailableError` when the
        database is away or too busy; should that happen while it commits, nobody knows whether
        it has.
        """
        with _passing_errors():
            async with self._writer.begin() as conn:
                yield conn

    async def run(self, work: Callable[[AsyncConnection], Coroutine[Any, Any, T]]) -> T:
        """The same with `work` as its block, which must wait for nothing but this connection.

        On SQLite it runs in the thread of the connection: a busy event loop cannot keep it, and
        with it the only write lock, waiting between two statements.
        """
        if self.dialect != "sqlite":
            async with self.transaction() as conn:
                return await work(conn)
        with _passing_errors():
            async with self._writer.connect() as conn:
                driver = (await conn.get_raw_connection()).driver_connection
                return await in_one_hop(driver, _in_transaction(conn, work))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A read-only transaction on one consistent state. `UnavailableError` as above."""
        with _passing_errors():
            async with self._reader.connect() as conn:
                yield conn

    @asynccontextmanager
    async def patient(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction that may take or wait as long as it likes.

        On PostgreSQL it has a connection of its own, which is closed at the end: locks of the
        session that it took are then free.
        """
        with _passing_errors():
            async with self._patient.begin() as conn:
                yield conn

    async def migrate(self) -> list[str]:
        """Bring the schema to the newest version; answers the versions that it applied.

        Safe to run from several processes at once: the others wait, then find nothing to do.
        """
        await asyncio.to_thread(self._make_directory)
        async with self.patient() as conn:
            return await conn.run_sync(migrations.upgrade)

    async def close(self) -> None:
        """Release every connection."""
        if self._lines is not None:
            await self._lines.close()
        for engine in (self._reader, self._writer, self._patient):
            await engine.dispose()

    def _make_directory(self) -> None:
        file = self._writer.url.database
        if self.dialect == "sqlite" and file:
            Path(file).parent.mkdir(parents=True, exist_ok=True)


async def _in_transaction(
    conn: AsyncConnection, work: Callable[[AsyncConnection], Coroutine[Any, Any, T]]
) -> T:
    async with conn.begin():
        return await work(conn)


@contextmanager
def _passing_errors() -> Iterator[None]:
    """Turn what will pass into `UnavailableError`; what is a fault stays what it is.

    PostgreSQL keeps no NUL in texts, and so does not even look for one.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise UnavailableError("the database is busy") from error
    except DBAPIError as error:
        if error.connection_invalidated or _is_passing(error.orig):
            logger.warning("the database is away or busy", extra={"error": str(error.orig)})
            raise UnavailableError("the database is away or busy") from error
        if postgres.is_nul(error.orig):
            if (error.statement or "").startswith("INSERT"):
                raise ValidationError("a text holds the character NUL") from error
            raise NotFoundError("nothing has a name with the character NUL") from error
        raise


def _is_passing(error: BaseException | None) -> bool:
    if isinstance(error, sqlite3.OperationalError):
        return error.sqlite_errorname in ("SQLITE_BUSY", "SQLITE_LOCKED")
    return postgres.is_passing(error)


def _sqlite_engines(url: URL, limits: DatabaseLimits) -> tuple[AsyncEngine, AsyncEngine]:
    if url.database in (None, "", ":memory:"):
        raise ValueError("an SQLite database needs a file: readers could not see one in memory")
    url = url.set(drivername="sqlite+aiosqlite")
    # isolation_level None: the driver starts no transaction by itself, so ours are exact, and
    # schema changes are part of them.
    connect_args = {
        "isolation_level": None,
        "timeout": limits.wait_seconds,
        "cached_statements": 256,
    }
    writer, reader = (
        create_async_engine(
            url,
            module=OneHopSqlite(),
            connect_args=connect_args,
            pool_size=size,
            max_overflow=0,
            pool_timeout=limits.wait_seconds,
            pool_reset_on_return=None,
        )
        for size in (1, limits.readers)
    )
    _prepare(
        writer,
        "BEGIN IMMEDIATE",
        "PRAGMA journal_mode=WAL",
        "PRAGMA synchronous=FULL",
        # Pages that change again and again are copied back together: a checkpoint makes a commit
        # wait, and with the usual 1000 pages (4 MiB) there would be several in a second.
        "PRAGMA wal_autocheckpoint=4000",
        # In KiB. With the usual 2 MiB it would read the same pages of its indexes again and again.
        "PRAGMA cache_size=-32768",
    )
    _prepare(reader, "BEGIN", "PRAGMA query_only=ON")
    return writer, reader


def _prepare(engine: AsyncEngine, begin: str, *pragmas: str) -> None:
    def on_connect(dbapi_connection: Any, _record: object) -> None:
        cursor = dbapi_connection.cursor()
        for pragma in ("PRAGMA foreign_keys=ON", *pragmas):
            cursor.execute(pragma)
        cursor.close()

    def on_begin(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    def on_reset(dbapi_connection: Any, _record: object, state: PoolResetState) -> None:
        # As the pool would do, but not when there is nothing: a rollback is a hop to a thread.
        if not state.terminate_only and dbapi_connection.driver_connection.in_transaction:
            dbapi_connection.rollback()

    def on_invalidate(dbapi_connection: Any, _record: object, _error: object) -> None:
        # The caller was cancelled inside a statement, and the connection is about to be closed.
        # SQLite keeps a closed connection's locks while a cursor lives, here in the traceback.
        # A second cancellation must not stop the pool from getting its connection back.
        with suppress(Exception, asyncio.CancelledError):
            dbapi_connection.rollback()

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "reset", on_reset)
    event.listen(engine.sync_engine, "invalidate", on_invalidate)
    event.listen(engine.sync_engine, "begin", on_begin)
