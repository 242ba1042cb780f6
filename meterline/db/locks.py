"""Locks that hold between processes, on PostgreSQL; on SQLite there is one process.

The gate has two sides. Whoever begins a plan of the sink passes it *shared*; whoever changes what
plans are made from passes it *exclusive*; and whoever needs everything to stand still closes it,
and waits until what was begun is done.

PostgreSQL's locks are advisory ones of a transaction: they end with it, and with its connection,
so a process that dies lets go of them. The transaction that a lock belongs to also carries the
writes that the lock protects: should the connection be lost, and the lock with it, they are lost
as well. On SQLite the write lock does what short locks are for, and asyncio the rest.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar
from zlib import crc32

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.db.engine import Database
from meterline.kernel.errors import UnavailableError

T = TypeVar("T")

Quiet = Callable[[AsyncConnection], Awaitable[bool]]
"""Whether nothing is under way any more."""

_NAMES = 7_105_201 << 32
_GATE = "gate"
_AGAIN_SECONDS = 0.02
_HEARTBEAT_SECONDS = 10.0
"""A server ends transactions that do nothing for a while (`PostgresOptions.idle_seconds`)."""


class Held:
    """A lock that is held, until the block that gave it ends."""

    def __init__(self, database: Database, conn: AsyncConnection | None) -> None:
        self._database = database
        self._conn = conn

    async def check(self) -> None:
        """Raises `UnavailableError` when the lock is lost."""
        if self._conn is not None:
            await self._conn.execute(sa.text("SELECT 1"))

    async def during(self, work: Awaitable[T]) -> T:
        """Do work that takes a while; it is cancelled when the lock is lost meanwhile."""
        task = asyncio.ensure_future(work)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=_HEARTBEAT_SECONDS)
                if done:
                    return task.result()
                await self.check()
        finally:
            task.cancel()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Write under the lock. It is committed at the latest when the lock is let go, if ever."""
        if self._conn is not None:
            yield self._conn
        else:
            async with self._database.transaction() as conn:
                yield conn


class Gate:
    """The locks of one database. Whoever shares an SQLite database shares its gate as well."""

    def __init__(self, database: Database, *, wait_seconds: float = 30.0) -> None:
        """`wait_seconds`: how long to wait until everything stands still."""
        self.database = database
        self._wait_seconds = wait_seconds
        self._embedded = database.dialect == "sqlite"
        self._turnstile = _Turnstile()
        self._mutexes: dict[str, asyncio.Lock] = {}

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that no exclusive one runs beside; it waits while all stands still."""
        if self._embedded:
            async with self._turnstile.passing(), self.database.transaction() as conn:
                yield conn
            return
        async with self._trying("pg_try_advisory_xact_lock_shared", _GATE) as conn:
            yield conn

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[AsyncConnection]:
        """A short transaction beside which no other one passes the gate."""
        if self._embedded:
            async with self._turnstile.passing(), self.database.transaction() as conn:
                yield conn
            return
        async with self.database.transaction() as conn:
            await _lock(conn, _GATE)
            yield conn

    @asynccontextmanager
    async def standing_still(self, quiet: Quiet) -> AsyncIterator[Held]:
        """Close the gate, and wait until `quiet`. `UnavailableError` when that takes too long.

        `quiet` is asked again and again, with the gate closed.
        """
        if self._embedded:
            async with self._turnstile.closed():
                await self._until(quiet, None)
                yield Held(self.database, None)
            return
        async with self.database.transaction() as conn:
            await _lock(conn, _GATE)
            await self._until(quiet, conn)
            yield Held(self.database, conn)

    async def _until(self, quiet: Quiet, conn: AsyncConnection | None) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                while True:
                    if await self._is(quiet, conn):
                        return
                    await asyncio.sleep(_AGAIN_SECONDS)
        except TimeoutError:
            raise UnavailableError("what was begun is not done yet; try again later") from None

    async def _is(self, quiet: Quiet, conn: AsyncConnection | None) -> bool:
        if conn is not None:
            return await quiet(conn)
        async with self.database.read() as reading:
            return await quiet(reading)

    @asynccontextmanager
    async def leadership(self, name: str) -> AsyncIterator[Held | None]:
        """One process at a time has it; the others are given None and may try again later."""
        if self._embedded:
            mutex = self._mutex(name)
            if mutex.locked():
                yield None
                return
            async with mutex:
                yield Held(self.database, None)
            return
        async with self.database.transaction() as conn:
            taken = await _try(conn, "pg_try_advisory_xact_lock", name)
            yield Held(self.database, conn) if taken else None

    @asynccontextmanager
    async def ownership(self, name: str) -> AsyncIterator[bool]:
        """Whether this process gets a lock that it keeps for hours, without looking after it."""
        if self._embedded:
            yield True
            return
        async with self.database.patient() as conn:
            yield await _try(conn, "pg_try_advisory_xact_lock", name)

    @asynccontextmanager
    async def mutex(self, name: str) -> AsyncIterator[Held]:
        """Wait for a lock that one process has at a time."""
        if self._embedded:
            async with self._mutex(name):
                yield Held(self.database, None)
            return
        async with self._trying("pg_try_advisory_xact_lock", name) as conn:
            yield Held(self.database, conn)

    def _mutex(self, name: str) -> asyncio.Lock:
        return self._mutexes.setdefault(name, asyncio.Lock())

    @asynccontextmanager
    async def _trying(self, function: str, name: str) -> AsyncIterator[AsyncConnection]:
        # Trying, and not waiting in the database: a wait would keep a connection of the pool. A
        # try fails while another one waits for the lock, so nobody starves behind many tries.
        while True:
            async with self.database.transaction() as conn:
                if await _try(conn, function, name):
                    yield conn
                    return
            await asyncio.sleep(_AGAIN_SECONDS)


async def _try(conn: AsyncConnection, function: str, name: str) -> bool:
    found = await conn.execute(sa.text(f"SELECT {function}(:key)"), {"key": _key(name)})
    return bool(found.scalar_one())


async def _lock(conn: AsyncConnection, name: str) -> None:
    await conn.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _key(name)})


def _key(name: str) -> int:
    return _NAMES + crc32(name.encode())


class _Turnstile:
    """Many pass, until somebody closes it; closed it is when those who pass are through."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._passing = 0
        self._closed = False

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._closed)
            self._passing += 1
        try:
            yield
        finally:
            async with self._changed:
                self._passing -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: not self._closed)
            self._closed = True
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._passing == 0)
            yield
        finally:
            async with self._changed:
                self._closed = False
                self._changed.notify_all()
