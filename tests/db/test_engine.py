"""Transactions: one writer at a time, readers that never wait, nothing half-done."""

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Dialect, Integer, MetaData, String, Table, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.db.engine import Database, DatabaseLimits
from meterline.db.tables import UtcDateTime, upsert
from meterline.kernel.errors import UnavailableError
from portal.store import secrets
from tests.support.database import database_url, migrated, opened

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SQLITE: Dialect = sqlite.dialect()
POSTGRESQL: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with migrated(tmp_path) as database:
        yield database


async def add(database: Database, name: str, value: str = "") -> None:
    async with database.transaction() as conn:
        await conn.execute(secrets.insert().values(name=name, value=value, created_at=EPOCH))


async def names(database: Database) -> list[str]:
    async with database.read() as conn:
        return list((await conn.execute(select(secrets.c.name))).scalars())


async def test_a_transaction_commits_at_its_end(database: Database) -> None:
    await add(database, "a")
    assert await names(database) == ["a"]


async def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as conn:
            await conn.execute(secrets.insert().values(name="a", value="", created_at=EPOCH))
            raise RuntimeError
    assert await names(database) == []
    await add(database, "b")
    assert await names(database) == ["b"]


async def test_a_reader_sees_one_state_and_waits_for_no_writer(database: Database) -> None:
    async with database.read() as reader:
        assert (await reader.execute(select(secrets.c.name))).all() == []
        async with database.transaction() as conn:
            await conn.execute(secrets.insert().values(name="a", value="", created_at=EPOCH))
            assert await names(database) == []  # not committed
        assert await names(database) == ["a"]
        assert (await reader.execute(select(secrets.c.name))).all() == []  # its own state


async def test_a_reader_cannot_write(database: Database) -> None:
    with pytest.raises(OperationalError, match="readonly"):
        async with database.read() as conn:
            await conn.execute(text("DELETE FROM secrets"))


async def test_writers_of_several_processes_lose_no_update(
    tmp_path: Path, database: Database
) -> None:
    async with migrated(tmp_path) as other:
        await add(database, "n", "0")

        async def increment(one: Database) -> None:
            async with one.transaction() as conn:
                value = int((await conn.execute(select(secrets.c.value))).scalar_one())
                await conn.execute(secrets.update().values(value=str(value + 1)))

        await asyncio.gather(*(increment(one) for one in [database, other] * 40))
        async with other.read() as conn:
            assert (await conn.execute(select(secrets.c.value))).scalar_one() == "80"


@pytest.mark.parametrize("cancellations", [1, 2, 3])
async def test_a_cancelled_transaction_leaves_nothing_and_frees_the_writer(
    database: Database, cancellations: int
) -> None:
    for rest in (0, 1, 2, 3, 5, 8):
        inside = asyncio.Event()

        async def write(inside: asyncio.Event = inside) -> None:
            async with database.transaction() as conn:
                await conn.execute(secrets.insert().values(name="x", value="", created_at=EPOCH))
                inside.set()
                while True:
                    await conn.execute(select(secrets.c.name))

        task = asyncio.create_task(write())
        await inside.wait()
        for _ in range(rest):  # stop at different points of the driver's work
            await asyncio.sleep(0)
        for _ in range(cancellations):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await names(database) == []
        await add(database, f"after{rest}")
        async with database.transaction() as conn:
            await conn.execute(secrets.delete())


async def test_waiting_for_another_process_ends(tmp_path: Path, database: Database) -> None:
    async with (
        migrated(tmp_path, DatabaseLimits(wait_seconds=0.05)) as hasty,
        database.transaction() as conn,
    ):
        await conn.execute(secrets.insert().values(name="a", value="", created_at=EPOCH))
        with pytest.raises(UnavailableError, match="busy"):
            await add(hasty, "b")
    assert await names(database) == ["a"]


async def test_writes_survive_a_power_cut(database: Database) -> None:
    async with database.transaction() as conn:
        pragmas = [
            (await conn.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        ]
    assert pragmas == ["wal", 2, 1]


def test_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a file"):
        Database.open("sqlite://")


async def test_the_folder_is_made(tmp_path: Path) -> None:
    database = Database.open(database_url(tmp_path / "a" / "b"))
    assert (await database.migrate())[0] == "0001"
    await database.close()


instants = st.datetimes(
    min_value=datetime(1900, 1, 1),
    max_value=datetime(2199, 12, 31),
    timezones=st.integers(-840, 840).map(lambda m: timezone(timedelta(minutes=m))),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(instants, instants)
def test_instants_keep_their_order_and_every_microsecond(a: datetime, b: datetime) -> None:
    column = UtcDateTime()
    stored = [column.process_bind_param(one, SQLITE) for one in (a, b)]
    assert stored[0] is not None and stored[1] is not None
    texts = [one.isoformat(" ", "microseconds") for one in stored if one is not None]
    assert (texts[0] < texts[1]) == (a < b)
    back = column.process_result_value(stored[0], SQLITE)
    assert back == a and back is not None and back.tzinfo is UTC


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        UtcDateTime().process_bind_param(datetime(2026, 1, 1), POSTGRESQL)


async def test_upsert_changes_what_it_is_told_and_keeps_the_rest(database: Database) -> None:
    later = EPOCH + timedelta(days=1)
    async with database.transaction() as conn:
        for update, value, when in (
            ([], "first", EPOCH),
            ([], "ignored", later),
            (["value"], "second", later),
        ):
            statement = upsert(conn, secrets, ["name"], update)
            await conn.execute(statement, [{"name": "a", "value": value, "created_at": when}])
        rows = (await conn.execute(select(secrets))).all()
    assert [tuple(row) for row in rows] == [("a", "second", EPOCH)]


def test_upsert_is_portable() -> None:
    table = Table("t", MetaData(), Column("k", String, primary_key=True), Column("v", Integer))
    conn = Mock()
    conn.dialect = POSTGRESQL
    compiled = str(upsert(conn, table, ["k"], ["v"]).compile(dialect=POSTGRESQL))
    assert "ON CONFLICT (k) DO UPDATE SET v = excluded.v" in compiled


async def test_a_transaction_in_one_go_is_whole_or_nothing(any_url: str) -> None:
    async with opened(any_url) as database:
        async with database.transaction() as conn:
            await conn.execute(text("CREATE TABLE gone (text VARCHAR(9))"))

        async def add(conn: AsyncConnection, what: str, error: Exception | None = None) -> int:
            await conn.execute(text("INSERT INTO gone VALUES (:what)"), {"what": what})
            if error is not None:
                raise error
            return int(await conn.scalar(text("SELECT count(*) FROM gone")) or 0)

        assert await database.run(lambda conn: add(conn, "a")) == 1
        with pytest.raises(ValueError, match="no"):
            await database.run(lambda conn: add(conn, "b", ValueError("no")))
        assert await database.run(lambda conn: add(conn, "c")) == 2
        # Others can write, before and after.
        async with database.transaction() as conn:
            assert await add(conn, "d") == 3


async def test_one_go_waits_for_nothing_else(database: Database) -> None:
    async def wait(conn: AsyncConnection) -> None:
        await conn.execute(text("CREATE TABLE never (text TEXT)"))
        await asyncio.sleep(1)

    with pytest.raises(RuntimeError):
        await database.run(wait)
    async with database.transaction() as conn:
        found = await conn.scalar(text("SELECT count(*) FROM sqlite_master WHERE name = 'never'"))
        assert found == 0


async def test_who_is_cancelled_leaves_the_connection_when_it_is_done(database: Database) -> None:
    begun, done = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    async def work(conn: AsyncConnection) -> None:
        await conn.execute(secrets.insert().values(name="it", value="", created_at=EPOCH))
        loop.call_soon_threadsafe(begun.set)
        done.wait(10)

    task = asyncio.create_task(database.run(work))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0.05)
    assert not task.done()
    done.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await names(database) == ["it"]
    await add(database, "another")
