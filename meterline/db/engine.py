"""The relational database: connections, transactions, and the schema at start.

One writer at a time on SQLite. Writers queue for the only connection of the writing pool and
start with `BEGIN IMMEDIATE`, so a transaction never fails half-way because another one wrote
first; readers have connections of their own and never wait for a writer (WAL).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, Connection, event, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from meterline.db import migrations


@dataclass(frozen=True, slots=True)
class DatabaseLimits:
    """How many connections there are and how long one waits for them."""

    readers: int = 4
    """Connections that read at the same time."""
    wait_seconds: float = 30.0
    """How long a caller waits for a connection or for another process's lock."""


class Database:
    """A relational database. Make one with `Database.open`, and `close` it at the end."""

    def __init__(self, writer: AsyncEngine, reader: AsyncEngine) -> None:
        self._writer = writer
        self._reader = reader

    @classmethod
    def open(cls, url: str, limits: DatabaseLimits | None = None) -> Self:
        """The database at `url` (`sqlite:////path/to/file.db`). Connects at the first use."""
        limits = limits or DatabaseLimits()
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return cls(*_sqlite_engines(parsed, limits))
        engine = create_async_engine(
            parsed, pool_size=limits.readers, pool_timeout=limits.wait_seconds
        )
        return cls(engine, engine)

    @property
    def dialect(self) -> str:
        """The kind of database: `sqlite` or `postgresql`."""
        return self._writer.dialect.name

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write: committed when the block ends, rolled back when it raises.

        Durable once the block has ended. On SQLite the block holds the only write lock.
        """
        async with self._writer.begin() as conn:
            yield conn

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A read-only transaction on one consistent state."""
        async with self._reader.connect() as conn:
            yield conn

    async def migrate(self) -> list[str]:
        """Bring the schema to the newest version; answers the versions that it applied.

        Safe to run from several processes at once: the others wait, then find nothing to do.
        """
        await asyncio.to_thread(self._make_directory)
        async with self.transaction() as conn:
            return await conn.run_sync(migrations.upgrade)

    async def close(self) -> None:
        """Release every connection."""
        await self._reader.dispose()
        if self._writer is not self._reader:
            await self._writer.dispose()

    def _make_directory(self) -> None:
        file = self._writer.url.database
        if self.dialect == "sqlite" and file:
            Path(file).parent.mkdir(parents=True, exist_ok=True)


def _sqlite_engines(url: URL, limits: DatabaseLimits) -> tuple[AsyncEngine, AsyncEngine]:
    if url.database in (None, "", ":memory:"):
        raise ValueError("an SQLite database needs a file: readers could not see one in memory")
    url = url.set(drivername="sqlite+aiosqlite")
    # isolation_level None: the driver starts no transaction by itself, so ours are exact, and
    # schema changes are part of them.
    connect_args = {"isolation_level": None, "timeout": limits.wait_seconds}
    writer = create_async_engine(
        url,
        connect_args=connect_args,
        pool_size=1,
        max_overflow=0,
        pool_timeout=limits.wait_seconds,
    )
    reader = create_async_engine(
        url,
        connect_args=connect_args,
        pool_size=limits.readers,
        max_overflow=0,
        pool_timeout=limits.wait_seconds,
    )
    _prepare(writer, "BEGIN IMMEDIATE", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
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

    def on_invalidate(dbapi_connection: Any, _record: object, _error: object) -> None:
        # The caller was cancelled inside a statement, and the connection is about to be closed.
        # SQLite keeps a closed connection's locks while a cursor lives, here in the traceback.
        # A second cancellation must not stop the pool from getting its connection back.
        with suppress(Exception, asyncio.CancelledError):
            dbapi_connection.rollback()

    event.listen(engine.sync_engine, "connect", on_connect)
    event.listen(engine.sync_engine, "invalidate", on_invalidate)
    event.listen(engine.sync_engine, "begin", on_begin)
