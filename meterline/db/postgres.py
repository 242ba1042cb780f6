"""PostgreSQL: how Meterline connects to it. The only file that knows the driver.

Writers run READ COMMITTED and lock what they decide on; readers see one state (REPEATABLE READ)
and cannot write. A connection that the server has closed is noticed before it is used, so that a
restart of PostgreSQL costs the transactions that it interrupted and no others.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import URL, ExceptionContext, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from meterline.db.limits import DatabaseLimits
from meterline.kernel.errors import UnavailableError
from meterline.kernel.grouping import Grouping

BACKENDS = ("postgresql", "postgres")
"""The schemes of URLs that lead here, `postgresql+asyncpg` included."""

_STATEMENTS = 500
_GRACE_SECONDS = 5.0
_CANNOT_REACH = "the database cannot be reached"


def is_postgres(url: str) -> bool:
    """Whether a URL leads to PostgreSQL."""
    return _scheme(url) in BACKENDS


@dataclass(frozen=True, slots=True)
class PostgresEngines:
    """Pools of connections, which connect when they are used."""

    writer: AsyncEngine
    reader: AsyncEngine
    patient: AsyncEngine
    """Without time limits and without a pool: for migrations, and for locks that are kept."""


def engines(url: str, limits: DatabaseLimits) -> PostgresEngines:
    """The connections to the database at `url`."""
    dsn = _dsn(url)
    patient = replace(limits, statement_seconds=0, lock_seconds=0, idle_seconds=0)
    return PostgresEngines(
        _engine(dsn, limits, "READ COMMITTED", {}, limits.writers),
        _engine(
            dsn,
            limits,
            "REPEATABLE READ",
            {"default_transaction_read_only": "on"},
            limits.readers,
        ),
        _engine(dsn, patient, "READ COMMITTED", {}, 0),
    )


def _scheme(url: str) -> str:
    return url.partition("://")[0].partition("+")[0]


def _dsn(url: str) -> str:
    return f"postgresql://{url.partition('://')[2]}"


def _engine(
    dsn: str, limits: DatabaseLimits, isolation: Any, settings: Mapping[str, str], size: int
) -> AsyncEngine:
    async def connect(*_args: object, **_options: object) -> Any:
        return await _connect(dsn, limits, settings)

    pool: dict[str, Any] = {
        "pool_size": size,
        "max_overflow": 0,
        "pool_timeout": limits.wait_seconds,
    }
    engine = create_async_engine(
        # Where to is the driver's business: it knows every form of PostgreSQL's URLs.
        URL.create("postgresql+asyncpg"),
        connect_args={"async_creator_fn": connect, "prepared_statement_cache_size": _STATEMENTS},
        isolation_level=isolation,
        **(pool if size else {"poolclass": NullPool}),
    )

    def on_checkout(dbapi_connection: Any, _record: object, _proxy: object) -> None:
        if dbapi_connection.driver_connection.is_closed():
            raise DisconnectionError("the server has closed the connection")

    def on_error(context: ExceptionContext) -> BaseException | None:
        # A server that is silent, or gone without a word: the connection is of no use any more.
        if isinstance(context.original_exception, OSError | TimeoutError):
            context.is_disconnect = True
            return UnavailableError(_CANNOT_REACH)
        return None

    event.listen(engine.sync_engine, "checkout", on_checkout)
    event.listen(engine.sync_engine, "handle_error", on_error)
    return engine


def _driver() -> Any:
    """The driver, loaded at its first use: a server with SQLite starts sooner without it."""
    import asyncpg

    return asyncpg


def _driver_errors() -> tuple[type[Exception], ...]:
    """What a server raises that is away, or does not do what it is asked."""
    driver = _driver()
    return driver.PostgresError, driver.InterfaceError, OSError, TimeoutError


async def _connect(dsn: str, limits: DatabaseLimits, settings: Mapping[str, str]) -> Any:
    try:
        return await _driver().connect(
            dsn,
            timeout=limits.connect_seconds,
            command_timeout=_silence(limits),
            statement_cache_size=_STATEMENTS,
            server_settings={
                "application_name": limits.application_name,
                "timezone": "UTC",
                "statement_timeout": _milliseconds(limits.statement_seconds),
                "lock_timeout": _milliseconds(limits.lock_seconds),
                "idle_in_transaction_session_timeout": _milliseconds(limits.idle_seconds),
                **settings,
            },
        )
    except _driver_errors() as error:
        raise UnavailableError(_CANNOT_REACH) from error


def _milliseconds(seconds: float) -> str:
    """As PostgreSQL takes it: 0 is no limit."""
    return str(max(1, round(seconds * 1000))) if seconds else "0"


def _silence(limits: DatabaseLimits) -> float | None:
    """How long a server may be silent. It ends a slow statement by itself before."""
    return limits.statement_seconds + _GRACE_SECONDS if limits.statement_seconds else None


_LINES = 2
"""Who takes one decides for a whole group, and there are two kinds of groups: holds, and rates."""
_LINE_SETTINGS = {
    # Every step finds its rows by index; a table without statistics must not change that.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}


@dataclass(slots=True)
class _Line:
    """A connection, none before the first use, and how often it was taken."""

    connection: Any = None
    taken: int = 0


class PostgresLines:
    """Connections for short transactions of a few statements, which all go by index."""

    def __init__(self, url: str, limits: DatabaseLimits) -> None:
        """Connects at the first use."""
        self._dsn = _dsn(url)
        self._limits = limits
        self._idle: asyncio.Queue[_Line] = asyncio.Queue()
        for _ in range(_LINES):
            self._idle.put_nowait(_Line())

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Any]:
        """A connection of the driver, in no transaction. `UnavailableError` when there is none."""
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                line = await self._idle.get()
        except TimeoutError as error:
            raise UnavailableError("the database is busy") from error
        try:
            if line.connection is None or line.connection.is_closed():
                line.connection, line.taken = None, 0
                line.connection = await _connect(self._dsn, self._limits, _LINE_SETTINGS)
            await _plan_anew(line)
            yield line.connection
        finally:
            on = line.connection
            if on is not None and (on.is_closed() or on.is_in_transaction()):
                # Whoever left it so cannot tell the server any more: that ends it, too.
                on.terminate()
                line.connection = None
            self._idle.put_nowait(line)

    async def close(self) -> None:
        """Release the connections that nobody has."""
        for _ in range(self._idle.qsize()):
            line = self._idle.get_nowait()
            if line.connection is not None:
                line.connection.terminate()
            self._idle.put_nowait(_Line())


async def _plan_anew(line: _Line) -> None:
    """Have the server forget its plans, at the first uses often, then ever more seldom.

    A plan that is kept was made for the tables as they were then. In an empty table an index over
    the wrong columns is as good as the right one; until somebody has the table analysed, each
    look-up would read all of a namespace.
    """
    line.taken += 1
    if line.taken & (line.taken - 1):
        return
    try:
        await line.connection.execute("DISCARD PLANS")
    except _driver_errors() as error:
        raise UnavailableError(_CANNOT_REACH) from error


_Look = tuple[Any, ...]
_Rows = list[tuple[Any, ...]]

_HOT_SETTINGS = {
    "default_transaction_read_only": "on",
    # Every hot read is a look-up in an index; a table without statistics must not change that.
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
_ARRAYS: Mapping[type, str] = {str: "text[]", int: "bigint[]"}
_MOST_WAITING = 20_000
_MOST_TOGETHER = 200


class PostgresHotReads:
    """Look-ups by index. Those that wait at the same time and ask the same share one statement.

    Each sees all that was committed before it was asked for.
    """

    def __init__(self, url: str, limits: DatabaseLimits | None = None) -> None:
        """Connects at the first use."""
        self._dsn = _dsn(url)
        self._limits = limits or DatabaseLimits()
        self._idle: asyncio.Queue[Any] = asyncio.Queue()
        for _ in range(self._limits.hot):
            self._idle.put_nowait(None)
        self._groups: dict[str, Grouping[_Look, _Rows]] = {}
        self._closed = False

    async def row(self, statement: str, parameters: Sequence[Any]) -> tuple[Any, ...] | None:
        """The first row of the answer, None when there is none."""
        found = await self.rows(statement, parameters)
        return found[0] if found else None

    async def rows(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Every row of the answer. Raises `UnavailableError` when the server does not answer."""
        if any(isinstance(one, str) and "\0" in one for one in parameters):
            return []  # which the server would not even look for
        group = self._groups.get(statement)
        if group is None:
            group = self._groups[statement] = self._group(statement)
        return await group.submit(tuple(parameters))

    async def close(self) -> None:
        """Answer what was asked, and release the connections."""
        self._closed = True
        for group in self._groups.values():
            await group.close()
        for _ in range(self._limits.hot):
            connection = await self._idle.get()
            if connection is not None:
                connection.terminate()

    def _group(self, statement: str) -> Grouping[_Look, _Rows]:
        async def commit(looks: Sequence[_Look]) -> Sequence[_Rows | Exception]:
            if len(looks) == 1:
                single = _numbered(statement)
                return [[tuple(row) for row in await self._fetch(single, looks[0])]]
            found: list[_Rows] = [[] for _ in looks]
            arrays = [list(column) for column in zip(*looks, strict=True)]
            for row in await self._fetch(_together(statement, looks[0]), arrays):
                found[row[0] - 1].append(tuple(row)[1:])
            return found

        return Grouping(
            commit,
            name="hot reads",
            max_items=_MOST_WAITING,
            max_group_items=_MOST_TOGETHER,
        )

    async def _fetch(self, statement: str, parameters: Sequence[Any]) -> Sequence[Any]:
        # A read that found its connection broken may be asked again: it has changed nothing.
        try:
            return await self._on_connection(lambda on: on.fetch(statement, *parameters))
        except ConnectionError:
            pass
        try:
            return await self._on_connection(lambda on: on.fetch(statement, *parameters))
        except ConnectionError as error:
            raise UnavailableError(_CANNOT_REACH) from error

    async def _on_connection(self, use: Callable[[Any], Awaitable[Sequence[Any]]]) -> Sequence[Any]:
        connection = await self._idle.get()
        try:
            if connection is None or connection.is_closed():
                connection = None
                connection = await _connect(self._dsn, self._limits, _HOT_SETTINGS)
            return await use(connection)
        except _driver().SyntaxOrAccessError:
            raise
        except _driver_errors() as error:
            if connection is not None:
                connection.terminate()
                connection = None
            raise ConnectionError(str(error)) from error
        finally:
            self._idle.put_nowait(connection)


def _numbered(statement: str) -> str:
    """The statement with `$1`, `$2`… where it has `?`."""
    first, *rest = statement.split("?")
    return first + "".join(f"${place}{part}" for place, part in enumerate(rest, 1))


def _together(statement: str, example: Sequence[Any]) -> str:
    """One statement for many look-ups: their parameters as arrays, and a row's number in front."""
    first, *rest = statement.split("?")
    inner = first + "".join(f"asked.p{place}{part}" for place, part in enumerate(rest, 1))
    arrays = [f"${place}::{_ARRAYS[type(one)]}" for place, one in enumerate(example, 1)]
    names = [f"p{place}" for place in range(1, len(arrays) + 1)]
    return (
        f"SELECT asked.place, found.* FROM unnest({', '.join(arrays)})"
        f" WITH ORDINALITY AS asked({', '.join(names)}, place)"
        f" CROSS JOIN LATERAL ({inner}) AS found"
    )


_RETRY_STATES = frozenset({"40001", "40P01", "55P03", "57014", "25P03", "25P04"})
"""Serialization failure, deadlock, lock or statement timeout, a transaction that idled."""
_AWAY_CLASSES = ("08", "53", "57P", "58")
"""Connection, resources, shutdown, the server's own files."""


def is_nul(error: BaseException | None) -> bool:
    """Whether a text could not be sent for a NUL in it."""
    return getattr(error, "sqlstate", None) == "22021"


def is_passing(error: BaseException | None) -> bool:
    """Whether the driver's error will pass: the server is away or busy, or two got in a tangle."""
    state = getattr(error, "sqlstate", None) or ""
    return state in _RETRY_STATES or state.startswith(_AWAY_CLASSES)
