"""SQLAlchemy's cursors on SQLite, with one hop to the connection's thread for a statement.

Those that SQLAlchemy brings hop for the cursor, the statement, its rows and the end of it. On a
busy event loop each hop waits for all that is ready before it, and a transaction that waits keeps
every other writer out. Who is in the thread already need not hop: a whole transaction can be one.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import aiosqlite
from sqlalchemy.dialects.sqlite.aiosqlite import (
    AsyncAdapt_aiosqlite_connection,
    AsyncAdapt_aiosqlite_cursor,
    AsyncAdapt_aiosqlite_dbapi,
)
from sqlalchemy.util import await_only

T = TypeVar("T")
_Done = tuple[Any, int, int | None, list[Any]]
"""Description, number of rows changed, id of the last one, and the rows found."""
_NOTHING: _Done = (None, -1, None, [])


async def hop(driver: Any, work: Callable[..., T], *given: Any) -> T:
    """Have a connection's thread do something; at once, for who is in it."""
    if threading.current_thread() is driver._thread:
        return work(*given)
    result: T = await driver._execute(work, *given)
    return result


async def in_one_hop(driver: Any, work: Coroutine[Any, Any, T]) -> T:
    """Have a connection's thread run a coroutine, which waits for nothing but this connection."""
    running = asyncio.ensure_future(driver._execute(_run, work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        # Until it is done, nobody else may have the connection.
        await asyncio.wait([running])
        if not running.cancelled():
            # Nobody is there to be told of an error; asyncio would complain of one nobody has seen.
            running.exception()
        raise


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("it waits for something else than its connection")


class OneHopCursor(AsyncAdapt_aiosqlite_cursor):
    """A cursor that is at its end once its statement was run: it has all rows."""

    __slots__ = ("_done",)

    def __init__(self, adapt_connection: AsyncAdapt_aiosqlite_connection) -> None:
        # Not the parent's, which makes a cursor in the thread.
        self._adapt_connection = adapt_connection
        self._connection = adapt_connection._connection
        self._rows = deque()
        self._done = _NOTHING

    @property
    def description(self) -> Any:
        """See `sqlite3.Cursor.description`."""
        return self._done[0]

    @property
    def rowcount(self) -> int:
        """See `sqlite3.Cursor.rowcount`."""
        return self._done[1]

    @property
    def lastrowid(self) -> Any:
        """See `sqlite3.Cursor.lastrowid`."""
        return self._done[2]

    async def _execute_async(self, operation: Any, parameters: Any) -> Any:
        await self._run(_execute, operation, () if parameters is None else parameters)

    async def _executemany_async(self, operation: Any, seq_of_parameters: Any) -> Any:
        await self._run(_execute_many, operation, seq_of_parameters)

    async def _run(self, work: Callable[..., _Done], *given: Any) -> None:
        driver: Any = self._connection
        async with self._adapt_connection._execute_mutex:
            self._done = await hop(driver, _in_thread, work, driver, *given)
        self._rows = deque(self._done[3])

    async def _async_soft_close(self) -> None:
        # Nothing is open.
        return

    def close(self) -> None:
        """Forget the rows."""
        self._rows.clear()


class _Connection(AsyncAdapt_aiosqlite_connection):
    __slots__ = ()

    _cursor_cls = OneHopCursor  # type: ignore[assignment]

    def commit(self) -> None:
        """See `sqlite3.Connection.commit`."""
        self._end("commit")

    def rollback(self) -> None:
        """See `sqlite3.Connection.rollback`."""
        self._end("rollback")

    def _end(self, how: str) -> None:
        driver: Any = self._connection
        if driver._connection is None:
            return
        try:
            await_only(hop(driver, getattr(driver._conn, how)))
        except Exception as error:
            self._handle_exception(error)


class OneHopSqlite(AsyncAdapt_aiosqlite_dbapi):
    """The driver, as an engine's `module`."""

    def __init__(self) -> None:
        super().__init__(aiosqlite, sqlite3)

    def connect(self, *arg: Any, **kw: Any) -> AsyncAdapt_aiosqlite_connection:
        """A connection whose cursors hop once."""
        return _Connection(self, super().connect(*arg, **kw)._connection)


def _in_thread(work: Callable[..., _Done], driver: Any, *given: Any) -> _Done:
    return work(driver._conn, *given)


def _execute(conn: sqlite3.Connection, operation: str, parameters: Any) -> _Done:
    cursor = conn.cursor()
    try:
        cursor.execute(operation, parameters)
        # The number of rows that a statement with RETURNING has changed is known after them.
        rows = cursor.fetchall() if cursor.description else []
        return cursor.description, cursor.rowcount, cursor.lastrowid, rows
    finally:
        cursor.close()


def _execute_many(conn: sqlite3.Connection, operation: str, rows: Sequence[Any]) -> _Done:
    cursor = conn.cursor()
    try:
        cursor.executemany(operation, rows)
        return cursor.description, cursor.rowcount, cursor.lastrowid, []
    finally:
        cursor.close()
