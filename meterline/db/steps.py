"""Transactions as generators: what to ask next follows from the answers, whoever asks.

A generator yields `Ask` and `Write` and returns its result. `in_transaction` runs it as one
transaction in the quickest way of each database: on SQLite all of it in the writer's thread, as
every hop between threads costs more than a statement; on PostgreSQL over the driver. `on` runs it
as part of a transaction that is under way.
"""

import asyncio
import json
import re
import sqlite3
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.db.engine import Database, _passing_errors
from meterline.db.onehop import hop
from meterline.db.postgres import is_passing
from meterline.kernel.errors import UnavailableError

T = TypeVar("T")
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
_CONSTRAINT = "23"
"""The class of PostgreSQL's states for constraints that are broken."""
_PLACE = re.compile(r"\$(\d+)")
_MOST_ROWS = 128
ROWS = "{rows}"
"""The place of the rows in SQLite's statement of a change."""
Row = Sequence[Any]
Texts = Mapping[str, str]
"""A statement for each dialect."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A query. `keys` are rows of texts, which are one parameter: see `asked`."""

    statement: Texts
    parameters: Sequence[Any] = ()
    keys: Sequence[Sequence[str]] | None = None

    def asked(self, dialect: str) -> tuple[Any, ...]:
        """The parameters: keys are a JSON text on SQLite, an array a column on PostgreSQL."""
        if self.keys is None:
            return tuple(self.parameters)
        if dialect == "postgresql":
            return tuple(list(column) for column in zip(*self.keys, strict=True))
        return (json.dumps(self.keys),)


@dataclass(frozen=True, slots=True)
class Each:
    """A change, for each row of parameters; in as few statements as can be.

    PostgreSQL, for which every statement is a journey, runs it once: a parameter is the array of a
    column. SQLite's statement has `ROWS` where the rows belong, or runs once for each row. There
    may be rows of nothing but NULL among them, which are to change nothing. It is to FAIL at the
    first row that cannot be: to undo the others it would keep a journal, and the transaction is
    rolled back anyway. A change that SQLite has made has no statement for it.
    """

    statement: Texts
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Write:
    """Changes of different rows, in any order; those without rows are none.

    With a guard all of it is done only if every row that the guard asks for is there, and locked
    until the end of the transaction. Then the answer is one row, of the number of the transaction;
    else there is no row, and nothing was changed. PostgreSQL alone has guards.
    """

    changes: Sequence[Each]
    guard: Each | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Asks for a mark: one row, which differs from that of another transaction if anybody has
    written anything at all between the two marks. No row where that cannot be told.

    Only SQLite can tell: PostgreSQL has no such number, and would often have another one.
    """

    before: Row | None = None
    """An earlier mark of the same transaction, in which nobody else commits anything."""


Steps = Generator[Ask | Write | Mark, Sequence[Row], T]


def mark(before: Row | None = None) -> Steps[Row | None]:
    """The mark, None where it cannot be told. `before` is an earlier one of this transaction."""
    found = yield Mark(before)
    return found[0] if found else None


def plain(statement: str) -> Texts:
    """A query with `?` for its parameters, in every dialect."""
    first, *rest = statement.split("?")
    numbered = first + "".join(f"${place}{part}" for place, part in enumerate(rest, 1))
    return {"sqlite": statement, "postgresql": numbered}


def insert(table: str, columns: Mapping[str, str], conflict: str = "") -> Texts:
    """A change that adds rows. `columns` have PostgreSQL's types; `conflict` is `ON CONFLICT …`.

    A row whose first column is NULL is none.
    """
    into = f"INTO {table} ({', '.join(columns)})"
    tail = f" {conflict}" if conflict else ""
    return {
        "sqlite": f"INSERT OR FAIL {into} SELECT * FROM (VALUES {ROWS})"
        f" WHERE column1 IS NOT NULL{tail}",
        "postgresql": f"INSERT {into} SELECT * FROM {arrays(columns)}{tail}",
    }


def update(table: str, columns: Mapping[str, str], keys: Mapping[str, str]) -> Texts:
    """A change of the rows that the keys name; a row of parameters has the columns first."""
    names = {**columns, **keys}
    assigned = ", ".join(f"{name} = w.{name}" for name in columns)
    found = " AND ".join(f"t.{name} = w.{name}" for name in keys)
    given = f"w ({', '.join(names)})"
    return {
        "sqlite": f"WITH {given} AS (VALUES {ROWS})"
        f" UPDATE OR FAIL {table} AS t SET {assigned} FROM w WHERE {found}",
        "postgresql": f"UPDATE {table} AS t SET {assigned} FROM {arrays(names)} AS {given}"
        f" WHERE {found}",
    }


def arrays(columns: Mapping[str, str]) -> str:
    """PostgreSQL's rows of parameters that are arrays."""
    typed = [f"${place}::{kind}[]" for place, kind in enumerate(columns.values(), 1)]
    return f"unnest({', '.join(typed)})"


class CollisionError(Exception):
    """A row is there already, or another constraint was broken: nothing was written."""


async def in_transaction(database: Database, steps: Steps[T]) -> T:
    """Run steps as one transaction; errors as of `Database.transaction`, and `CollisionError`."""
    # No transaction is begun through SQLAlchemy: its way to the driver costs more than the work.
    if database._lines is None:
        return await in_a_row(database, steps, lambda _: None)
    with _passing_errors():
        async with database._lines.take() as driver:
            return await _on_its_protocol(driver, _all_of(driver, steps))


async def in_a_row(
    database: Database, steps: Steps[T], following: Callable[[T], Steps[T] | None]
) -> T:
    """Run steps as a transaction, and then those that follow from what it came to, each as one.

    On SQLite, where all of it is in the writer's thread, `following` as well. Answers what the last
    one came to; errors as of `in_transaction`, and those before it are durable then. Other writers
    have their turn when nothing follows: that must be soon.
    """
    with _passing_errors():
        async with database._writer.connect() as conn:
            driver = (await conn.get_raw_connection()).driver_connection
            assert driver is not None
            return await _hop(driver, _row_of, driver, steps, following)


async def one_by_one(database: Database, steps: Steps[T]) -> T:
    """Run steps of which each is a transaction by itself; errors as above. On PostgreSQL only.

    What they read may have changed when they write: a `Write` must have a guard.
    """
    assert database._lines is not None
    with _passing_errors():
        async with database._lines.take() as driver:
            return await _on_its_protocol(driver, _by(driver, steps))


async def _hop(driver: Any, work: Callable[..., T], *given: Any) -> T:
    """Have the driver's thread do something with its connection."""
    try:
        return await hop(driver, work, *given)
    except sqlite3.IntegrityError as error:
        raise CollisionError(str(error)) from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname in ("SQLITE_BUSY", "SQLITE_LOCKED"):
            raise UnavailableError("the database is busy") from error
        raise


async def _all_of(driver: Any, steps: Steps[T]) -> T:
    """All of a transaction."""
    try:
        await driver.execute(_BEGIN)
        result = await _by(driver, steps)
        await driver.execute("COMMIT")
    except BaseException:
        if not driver.is_closed():
            await asyncio.shield(driver.execute("ROLLBACK"))
        raise
    return result


async def _on_its_protocol(driver: Any, work: Awaitable[T]) -> T:
    """Wait for work on a connection, and raise what its errors mean."""
    try:
        result = await work
    except BaseException as error:
        if (getattr(error, "sqlstate", None) or "").startswith(_CONSTRAINT):
            raise CollisionError(str(error)) from error
        if is_passing(error) or isinstance(error, OSError | TimeoutError) or driver.is_closed():
            raise UnavailableError("the database is away or busy") from error
        raise
    return result


async def _by(driver: Any, steps: Steps[T]) -> T:
    answer: Any = None  # As generators are begun.
    try:
        while True:
            text, parameters = _for_postgresql(steps.send(answer))
            answer = await driver.fetch(text, *parameters) if text else ()
    except StopIteration as end:
        result: T = end.value
        return result


def _for_postgresql(step: Ask | Write | Mark) -> tuple[str, Sequence[Any]]:
    """One statement, with its parameters; no text when there is nothing to do."""
    if isinstance(step, Mark):
        return "", ()
    if isinstance(step, Ask):
        return step.statement["postgresql"], step.asked("postgresql")
    changes = [one for one in step.changes if one.rows]
    guard = step.guard
    parts = changes if guard is None else [guard, *changes]
    columns = [list(column) for one in parts for column in zip(*one.rows, strict=True)]
    texts = tuple(one.statement["postgresql"] for one in parts)
    if guard is None:
        return _together(texts), columns
    return _guarded(texts), [*columns, len(guard.rows)]


@lru_cache(1_000)
def _together(texts: tuple[str, ...]) -> str:
    """Changes as one statement; the parameters of each follow those of the one before."""
    *others, last = _numbered(texts) or [""]
    if not others:
        return last
    named = ", ".join(f"change_{place} AS ({text})" for place, text in enumerate(others))
    return f"WITH {named} {last}"


@lru_cache(1_000)
def _guarded(texts: tuple[str, ...]) -> str:
    """Changes as one statement that does nothing unless the first text finds all of its rows."""
    guard, *changes = _numbered(texts)
    # The number of rows is the last parameter.
    expected = 1 + max(int(found) for text in (guard, *changes) for found in _PLACE.findall(text))
    named = [
        f"guard AS MATERIALIZED ({guard})",
        f"safe AS MATERIALIZED (SELECT count(*) = ${expected}::bigint AS yes FROM guard)",
    ]
    for place, text in enumerate(changes):
        assert "ON CONFLICT" not in text, "a condition has no place behind it"
        more = "WHERE" if text.startswith("INSERT") else "AND"
        named.append(f"change_{place} AS ({text} {more} (SELECT yes FROM safe))")
    return f"WITH {', '.join(named)} SELECT pg_current_xact_id()::xid::text FROM safe WHERE yes"


def _numbered(texts: Sequence[str]) -> list[str]:
    """Statements whose parameters follow those of the one before."""
    numbered: list[str] = []
    offset = 0
    for text in texts:
        places = [int(found) for found in _PLACE.findall(text)]
        numbered.append(_PLACE.sub(lambda m, by=offset: f"${int(m[1]) + by}", text))  # type: ignore[misc]
        offset += max(places)
    return numbered


async def on(conn: AsyncConnection, steps: Steps[T]) -> T:
    """Run steps in a transaction that is under way, or begins here."""
    if not conn.in_transaction():
        await conn.begin()
    if conn.dialect.name == "sqlite":
        driver = (await conn.get_raw_connection()).driver_connection
        assert driver is not None
        return await _hop(driver, _through, driver._conn, steps)
    answer: Any = None  # As generators are begun.
    try:
        while True:
            text, parameters = _for_postgresql(steps.send(answer))
            answer = ()
            if text:
                found = await conn.exec_driver_sql(text, tuple(parameters))
                answer = found.all() if found.returns_rows else ()
    except StopIteration as end:
        result: T = end.value
        return result


def _whole(driver: Any, steps: Steps[T]) -> T:
    """All of a transaction, in the thread of the connection."""
    conn: sqlite3.Connection = driver._conn
    conn.execute("BEGIN IMMEDIATE")
    try:
        result = _through(conn, steps)
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise
    return result


def _row_of(driver: Any, steps: Steps[T], following: Callable[[T], Steps[T] | None]) -> T:
    while True:
        result = _whole(driver, steps)
        then = following(result)
        if then is None:
            return result
        steps = then


def _through(conn: sqlite3.Connection, steps: Steps[T]) -> T:
    answer: Any = None  # As generators are begun.
    try:
        while True:
            step = steps.send(answer)
            if isinstance(step, Ask):
                answer = conn.execute(step.statement["sqlite"], step.asked("sqlite")).fetchall()
                continue
            if isinstance(step, Mark):
                answer = [_mark(conn, step.before)]
                continue
            answer = ()
            for change in step.changes:
                if "sqlite" in change.statement:
                    _change(conn, change.statement["sqlite"], change.rows)
    except StopIteration as end:
        result: T = end.value
        return result


def _change(conn: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> None:
    """Make a change for each row, of many rows at a time where the statement has a place for them.

    For each statement, and each row of `executemany`, the thread lets go of the interpreter, and
    then waits until the event loop lets go of it. So rows are few statements, and to prepare few
    different ones, rows of NULL fill them up.
    """
    if ROWS not in statement:
        conn.executemany(statement, rows)
        return
    for start in range(0, len(rows), _MOST_ROWS):
        some = rows[start : start + _MOST_ROWS]
        width, count = len(some[0]), _at_least(len(some))
        values = [value for row in some for value in row]
        values += [None] * (width * (count - len(some)))
        conn.execute(_of_rows(statement, count, width), values)


def _at_least(rows: int) -> int:
    """The next one of 1, 2, 3, 4, 6, 8, 12, 16, 24 and so on."""
    step = 1 << max(0, rows.bit_length() - 2)
    return -(-rows // step) * step


@lru_cache(1_000)
def _of_rows(statement: str, count: int, width: int) -> str:
    row = f"({', '.join('?' * width)})"
    return statement.replace(ROWS, ", ".join([row] * count))


def _mark(conn: sqlite3.Connection, before: Row | None) -> Row:
    # The first number tells of what other connections have committed, the second counts what this
    # one has changed; another connection begins anew with both. The connection is part of the mark
    # itself, and not by a number of it, so that no later one can be taken for it.
    if before is None:
        (version,) = conn.execute("PRAGMA data_version").fetchone()
    else:
        version = before[1]
    return conn, version, conn.total_changes
