"""Transactions as generators: what to ask next follows from the answers, whoever asks.

A generator yields `Ask` and `Each` and returns its result. `in_transaction` runs it as one
transaction in the quickest way of each database: on SQLite all of it in the writer's thread, as
every hop between threads costs more than a statement; on PostgreSQL over the driver. `on` runs it
as part of a transaction that is under way.
"""

import asyncio
import json
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.db.engine import Database, _passing_errors
from meterline.db.postgres import is_passing
from meterline.kernel.errors import UnavailableError

T = TypeVar("T")
_BEGIN = (
    "BEGIN ISOLATION LEVEL READ COMMITTED;"
    # Every step finds its rows by index; a table without statistics must not change that.
    " SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;"
    " SET LOCAL enable_mergejoin = off; SET LOCAL plan_cache_mode = force_generic_plan;"
    " SET LOCAL jit = off"
)
_CONSTRAINT = "23"
"""The class of PostgreSQL's states for constraints that are broken."""
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
    """A statement that is run once for each row of parameters."""

    statement: Texts
    rows: Sequence[Row]


Steps = Generator[Ask | Each, Sequence[Row], T]


def plain(statement: str) -> Texts:
    """A statement with `?` for its parameters, in every dialect."""
    first, *rest = statement.split("?")
    numbered = first + "".join(f"${place}{part}" for place, part in enumerate(rest, 1))
    return {"sqlite": statement, "postgresql": numbered}


class CollisionError(Exception):
    """A row is there already, or another constraint was broken: nothing was written."""


async def in_transaction(database: Database, steps: Steps[T]) -> T:
    """Run steps as one transaction; errors as of `Database.transaction`, and `CollisionError`."""
    # No transaction is begun through SQLAlchemy: its way to the driver costs more than the work.
    with _passing_errors():
        async with database._writer.connect() as conn:
            driver = (await conn.get_raw_connection()).driver_connection
            assert driver is not None
            if database.dialect == "sqlite":
                return await _in_its_thread(driver, steps)
            return await _on_its_protocol(driver, steps)


async def _in_its_thread(driver: Any, steps: Steps[T]) -> T:
    try:
        result: T = await driver._execute(_whole, driver, steps)
    except sqlite3.IntegrityError as error:
        raise CollisionError(str(error)) from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorname in ("SQLITE_BUSY", "SQLITE_LOCKED"):
            raise UnavailableError("the database is busy") from error
        raise
    return result


async def _on_its_protocol(driver: Any, steps: Steps[T]) -> T:
    try:
        await driver.execute(_BEGIN)
        result = await _by(driver, steps)
        await driver.execute("COMMIT")
    except BaseException as error:
        if not driver.is_closed():
            await asyncio.shield(driver.execute("ROLLBACK"))
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
            step = steps.send(answer)
            text = step.statement["postgresql"]
            if isinstance(step, Each):
                await driver.executemany(text, step.rows)
                answer = ()
            else:
                answer = await driver.fetch(text, *step.asked("postgresql"))
    except StopIteration as end:
        result: T = end.value
        return result


async def on(conn: AsyncConnection, steps: Steps[T]) -> T:
    """Run steps in a transaction that is under way."""
    dialect = conn.dialect.name
    answer: Any = None  # As generators are begun.
    try:
        while True:
            step = steps.send(answer)
            answer = await _over(conn, dialect, step)
    except StopIteration as end:
        result: T = end.value
        return result


async def _over(conn: AsyncConnection, dialect: str, step: Ask | Each) -> Sequence[Row]:
    text = step.statement[dialect]
    if isinstance(step, Each):
        if step.rows:
            await conn.exec_driver_sql(text, [tuple(row) for row in step.rows])
        return ()
    return (await conn.exec_driver_sql(text, step.asked(dialect))).all()


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


def _through(conn: sqlite3.Connection, steps: Steps[T]) -> T:
    answer: Any = None  # As generators are begun.
    try:
        while True:
            step = steps.send(answer)
            text = step.statement["sqlite"]
            if isinstance(step, Each):
                conn.executemany(text, step.rows)
                answer = ()
            else:
                answer = conn.execute(text, step.asked("sqlite")).fetchall()
    except StopIteration as end:
        result: T = end.value
        return result
