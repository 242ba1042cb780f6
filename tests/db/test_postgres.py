"""PostgreSQL that is away, busy, silent or tangled: 503 while it lasts, and no hand after it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.db import mutex, postgres
from meterline.db.engine import Database
from meterline.db.hot import open_hot_reads
from meterline.db.limits import DatabaseLimits
from meterline.kernel.errors import NotFoundError, UnavailableError, ValidationError
from portal.store import secrets
from tests.support.database import opened
from tests.support.postgres import PostgresCluster

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
HASTY = DatabaseLimits(wait_seconds=2, connect_seconds=1, statement_seconds=0.3, lock_seconds=0.2)
LOOK = "SELECT name FROM secrets WHERE name = ?"


async def add(database: Database, name: str, value: str = "") -> None:
    async with database.transaction() as conn:
        await conn.execute(secrets.insert().values(name=name, value=value, created_at=EPOCH))


async def names(database: Database) -> list[str]:
    async with database.read() as conn:
        return list((await conn.execute(select(secrets.c.name).order_by("name"))).scalars())


@asynccontextmanager
async def both(
    url: str, limits: DatabaseLimits = HASTY
) -> AsyncIterator[tuple[Database, Database]]:
    async with opened(url, limits) as one, opened(url, limits) as other:
        yield one, other


async def test_a_restart_costs_what_it_interrupts_and_no_more(
    durable_postgres: PostgresCluster,
) -> None:
    url = durable_postgres.create_database()
    hot = open_hot_reads(url, HASTY)
    async with opened(url, HASTY) as database:
        await add(database, "a")
        assert await hot.row(LOOK, ["a"]) == ("a",)
        # Idle connections: nobody notices.
        await asyncio.to_thread(durable_postgres.restart)
        await add(database, "b")
        assert await names(database) == ["a", "b"]
        assert await hot.row(LOOK, ["b"]) == ("b",)
        # In the middle of a transaction, and while it is away.
        with pytest.raises(UnavailableError):
            async with database.transaction() as conn:
                await conn.execute(secrets.insert().values(name="lost", value="", created_at=EPOCH))
                await asyncio.to_thread(durable_postgres.kill)
                await conn.execute(text("SELECT 1"))
        for away in (names(database), add(database, "c"), hot.row(LOOK, ["a"])):
            with pytest.raises(UnavailableError):
                await away
        await asyncio.to_thread(durable_postgres.start)
        await add(database, "d")
        assert await names(database) == ["a", "b", "d"]
        assert await hot.row(LOOK, ["d"]) == ("d",)
    await hot.close()


async def test_a_silent_server_is_given_up(
    durable_postgres: PostgresCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_GRACE_SECONDS", 0.1)
    url = durable_postgres.create_database()
    hot = open_hot_reads(url, HASTY)
    async with opened(url, HASTY) as database:
        await add(database, "a")
        assert await hot.row(LOOK, ["a"]) == ("a",)
        durable_postgres.pause()
        try:
            for silent in (names(database), add(database, "b"), hot.row(LOOK, ["a"])):
                with pytest.raises(UnavailableError):
                    await silent
        finally:
            durable_postgres.resume()
        await add(database, "c")
        assert await names(database) == ["a", "c"]
        assert await hot.row(LOOK, ["c"]) == ("c",)
    await hot.close()


async def test_what_takes_too_long_ends(postgres_url: str) -> None:
    async with both(postgres_url) as (one, other):
        await add(one, "a")
        with pytest.raises(UnavailableError):
            async with one.transaction() as conn:
                await conn.execute(text("SELECT pg_sleep(5)"))
        async with one.transaction() as conn:
            await mutex.alone(conn, "a name")
            with pytest.raises(UnavailableError):
                async with other.transaction() as waiting:
                    await mutex.alone(waiting, "a name")
        await add(one, "b")


async def test_a_transaction_that_does_nothing_ends(postgres_url: str) -> None:
    async with opened(postgres_url, replace(HASTY, idle_seconds=0.1)) as database:
        await add(database, "a")
        with pytest.raises(UnavailableError):
            async with database.transaction() as conn:
                await _write(conn, "a")
                await asyncio.sleep(0.3)
                await conn.execute(text("SELECT 1"))
        await add(database, "b")


async def test_a_migration_may_take_longer(postgres_url: str) -> None:
    async with opened(postgres_url, HASTY) as database, database.patient() as conn:
        await conn.execute(text("SELECT pg_sleep(0.5)"))


async def test_waiting_for_a_connection_ends(postgres_url: str) -> None:
    limits = DatabaseLimits(writers=1, wait_seconds=0.05)
    async with opened(postgres_url, limits) as database:
        async with database.transaction():
            with pytest.raises(UnavailableError, match="busy"):
                await add(database, "b")
        await add(database, "c")


async def test_of_two_in_a_tangle_one_goes_on(postgres_url: str) -> None:
    limits = DatabaseLimits()
    async with both(postgres_url, limits) as (one, other):
        await add(one, "a")
        await add(one, "b")
        both_locked = asyncio.Barrier(2)

        async def lock(database: Database, first: str, second: str) -> None:
            async with database.transaction() as conn:
                await _write(conn, first)
                await both_locked.wait()
                await _write(conn, second)

        results = await asyncio.gather(
            lock(one, "a", "b"), lock(other, "b", "a"), return_exceptions=True
        )
        assert sorted(map(type, results), key=str) == sorted(
            [UnavailableError, type(None)], key=str
        )


async def _write(conn: AsyncConnection, name: str) -> None:
    await conn.execute(update(secrets).where(secrets.c.name == name).values(value="x"))


async def test_a_reader_sees_one_state_and_cannot_write(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        async with database.read() as conn:
            assert (await conn.execute(select(secrets.c.name))).all() == []
            await add(database, "a")
            assert (await conn.execute(select(secrets.c.name))).all() == []
        with pytest.raises(DBAPIError, match="read-only"):
            async with database.read() as conn:
                await conn.execute(text("DELETE FROM secrets"))


async def test_cancelled_transactions_leave_nothing_and_give_their_connections_back(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, DatabaseLimits(writers=2, wait_seconds=5)) as database:

        async def write(name: str) -> None:
            async with database.transaction() as conn:
                await conn.execute(secrets.insert().values(name=name, value="", created_at=EPOCH))
                await conn.execute(text("SELECT pg_sleep(10)"))

        for number in range(5):
            tasks = [asyncio.create_task(write(f"{number}-{one}")) for one in range(2)]
            await asyncio.sleep(0.01 * number)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        assert await names(database) == []
        await add(database, "a")


async def test_nul_is_refused_and_never_found(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        with pytest.raises(ValidationError, match="NUL"):
            await add(database, "a\0")
        with pytest.raises(NotFoundError, match="NUL"):
            async with database.read() as conn:
                await conn.execute(select(secrets).where(secrets.c.name == "\0"))


async def test_where_nobody_listens(postgres: PostgresCluster) -> None:
    for url in (
        "postgresql://nobody:x@127.0.0.1:1/none",
        postgres.url("none"),
        postgres.url("postgres").replace("meterline:", "meterline:wrong"),
    ):
        hot = open_hot_reads(url, HASTY)
        async with opened(url, HASTY) as database:
            with pytest.raises(UnavailableError, match="cannot be reached"):
                await names(database)
            with pytest.raises(UnavailableError, match="cannot be reached"):
                await hot.row(LOOK, ["a"])
        await hot.close()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg"])
async def test_forms_of_the_address(postgres_url: str, scheme: str) -> None:
    url = f"{scheme}://{postgres_url.partition('://')[2]}?application_name=mine&sslmode=prefer"
    hot = open_hot_reads(url)
    async with opened(url) as database:
        assert database.dialect == "postgresql"
        assert await names(database) == []
        assert await hot.row(LOOK, ["a"]) is None
    await hot.close()


def test_other_databases_are_refused() -> None:
    with pytest.raises(ValueError, match="SQLite"):
        Database.open("mysql://localhost/db")


async def test_plans_are_made_anew_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    at: list[int] = []
    taken = 0

    class Driver:
        async def execute(self, statement: str) -> None:
            assert statement == "DISCARD PLANS"
            at.append(taken)

        def is_closed(self) -> bool:
            return False

        def is_in_transaction(self) -> bool:
            return False

    async def connect(*_: object) -> Driver:
        return Driver()

    monkeypatch.setattr(postgres, "_LINES", 1)
    monkeypatch.setattr(postgres, "_connect", connect)
    lines = postgres.PostgresLines("postgresql://nobody@nowhere/x", DatabaseLimits())
    for _ in range(69):
        taken += 1
        async with lines.take():
            pass
    assert at == [1, 2, 4, 8, 16, 32, 64]
