import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import text

from meterline.db.steps import (
    Ask,
    CollisionError,
    Each,
    Mark,
    Row,
    Steps,
    Write,
    _for_postgresql,
    in_a_row,
    in_transaction,
    insert,
    mark,
    one_by_one,
    plain,
    update,
)
from tests.support.database import opened


def test_changes_are_one_statement_on_postgresql() -> None:
    added = insert("a", {"x": "text", "y": "bigint"}, "ON CONFLICT DO NOTHING")
    moved = update("b", {"z": "text"}, {"k": "text"})
    nothing = Each(update("c", {"z": "text"}, {"k": "text"}), [])
    statement, columns = _for_postgresql(
        Write([Each(added, [("p", 1), ("q", 2)]), nothing, Each(moved, [("new", "key")])])
    )
    assert statement == (
        "WITH change_0 AS (INSERT INTO a (x, y)"
        " SELECT * FROM unnest($1::text[], $2::bigint[]) ON CONFLICT DO NOTHING)"
        " UPDATE b AS t SET z = w.z FROM unnest($3::text[], $4::text[]) AS w (z, k)"
        " WHERE t.k = w.k"
    )
    assert columns == [["p", "q"], [1, 2], ["new"], ["key"]]


def test_a_guard_stands_before_every_change() -> None:
    guard = Each({"postgresql": "SELECT 1 FROM w($1::text[]) FOR UPDATE"}, [("k",), ("l",)])
    added = Each(insert("a", {"x": "text"}), [("p",)])
    moved = Each(update("b", {"z": "text"}, {"k": "text"}), [("new", "key")])
    statement, parameters = _for_postgresql(Write([added, moved], guard))
    assert statement == (
        "WITH guard AS MATERIALIZED (SELECT 1 FROM w($1::text[]) FOR UPDATE),"
        " safe AS MATERIALIZED (SELECT count(*) = $5::bigint AS yes FROM guard),"
        " change_0 AS (INSERT INTO a (x) SELECT * FROM unnest($2::text[])"
        " WHERE (SELECT yes FROM safe)),"
        " change_1 AS (UPDATE b AS t SET z = w.z FROM unnest($3::text[], $4::text[]) AS w (z, k)"
        " WHERE t.k = w.k AND (SELECT yes FROM safe))"
        " SELECT pg_current_xact_id()::xid::text FROM safe WHERE yes"
    )
    assert parameters == [["k", "l"], ["p"], ["new"], ["key"], 2]


def test_changes_without_rows_are_none() -> None:
    assert _for_postgresql(Write([Each(insert("a", {"x": "text"}), [])])) == ("", [])


async def test_sqlite_takes_many_rows_at_a_time(tmp_path: Path) -> None:
    added = insert("notes", {"key": "text", "text": "text"}, "ON CONFLICT (key) DO NOTHING")
    moved = update("notes", {"text": "text"}, {"key": "text"})
    fewer = {"sqlite": "DELETE FROM notes WHERE key = ?"}
    numbers = [(str(one), "old") for one in range(301)]

    def change() -> Steps[Sequence[Row]]:
        yield Write([Each(added, numbers), Each(moved, [])])
        yield Write([Each(added, numbers[:3]), Each(moved, [("new", key) for key, _ in numbers])])
        yield Write([Each(moved, [(None, "7"), ("x", "nobody")]), Each(fewer, [("8",), ("9",)])])
        return (yield Ask(plain("SELECT key, text FROM notes ORDER BY rowid")))

    async with opened(f"sqlite:///{tmp_path}/it.db") as database:
        async with database.transaction() as conn:
            await conn.execute(text("CREATE TABLE notes (key TEXT PRIMARY KEY, text TEXT)"))
        found = [tuple(row) for row in await in_transaction(database, change())]
    expected = [(key, None if key == "7" else "new") for key, _ in numbers]
    assert found == [row for row in expected if row[0] not in ("8", "9")]


async def test_transactions_in_a_row_are_each_durable_by_itself(tmp_path: Path) -> None:
    added = insert("notes", {"text": "text"})
    rest = ["b", "c", "a", "never"]

    def note(text: str) -> Steps[str]:
        yield Write([Each(added, [(text,)])])
        return text

    async with opened(f"sqlite:///{tmp_path}/it.db") as database:
        async with database.transaction() as conn:
            await conn.execute(text("CREATE TABLE notes (text TEXT PRIMARY KEY)"))
        with pytest.raises(CollisionError):
            await in_a_row(database, note("a"), lambda _: note(rest.pop(0)))
        assert rest == ["never"]
        assert await in_a_row(database, note("d"), lambda _: None) == "d"
        async with database.read() as conn:
            found = (await conn.execute(text("SELECT text FROM notes ORDER BY text"))).scalars()
            assert list(found) == ["a", "b", "c", "d"]


def _mark() -> Steps[Sequence[Row]]:
    return (yield Mark())


def _note(text: str) -> Steps[Sequence[Row]]:
    before = yield from mark()
    yield Write([Each(insert("notes", {"text": "text"}), [(text,)])])
    # What it says at the end must be what the next one finds.
    return (yield Mark(before))


async def test_a_mark_stays_until_anybody_writes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/it.db"
    async with opened(url) as database, opened(url) as other:
        async with database.transaction() as conn:
            await conn.execute(text("CREATE TABLE notes (text TEXT)"))
        first = await in_transaction(database, _mark())
        assert await in_transaction(database, _mark()) == first
        noted = await in_transaction(database, _note("our own"))
        assert noted != first
        assert await in_transaction(database, _mark()) == noted
        async with database.transaction() as conn:
            await conn.execute(text("UPDATE notes SET text = 'the same connection'"))
        ours = await in_transaction(database, _mark())
        assert ours != noted
        await in_transaction(other, _note("another connection"))
        theirs = await in_transaction(database, _mark())
        assert theirs != ours
        await database.close()
        # A connection that begins anew has seen nothing, and so knows nothing.
        assert await in_transaction(database, _mark()) not in (first, noted, ours, theirs)


def _put(value: str, expected: str) -> Steps[Sequence[Row]]:
    found = "SELECT 1 FROM things WHERE name = ANY($1::text[]) AND value = ANY($2::text[])"
    guard = Each({"postgresql": f"{found} FOR UPDATE"}, [("it", expected)])
    change = update("things", {"value": "text"}, {"name": "text"})
    return (yield Write([Each(change, [(value, "it")])], guard))


async def test_what_is_guarded_is_written_if_it_is_as_expected(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        async with database.transaction() as conn:
            await conn.execute(text("CREATE TABLE things (name TEXT, value TEXT)"))
            await conn.execute(text("INSERT INTO things VALUES ('it', 'old')"))
        assert len(await one_by_one(database, _put("new", "old"))) == 1
        assert len(await one_by_one(database, _put("newer", "old"))) == 0
        async with database.read() as conn:
            assert await conn.scalar(text("SELECT value FROM things")) == "new"


async def test_who_waits_for_a_change_finds_it(postgres_url: str) -> None:
    """The guard looks at a row as it is when its lock is there, not as it was when it was asked."""
    async with opened(postgres_url) as database:
        async with database.transaction() as conn:
            await conn.execute(text("CREATE TABLE things (name TEXT, value TEXT)"))
            await conn.execute(text("INSERT INTO things VALUES ('it', 'old')"))
        async with database.transaction() as conn:
            await conn.execute(text("UPDATE things SET value = 'other'"))
            late = asyncio.create_task(one_by_one(database, _put("new", "old")))
            await asyncio.sleep(0.3)
            assert not late.done()
        assert len(await late) == 0
        async with database.read() as conn:
            assert await conn.scalar(text("SELECT value FROM things")) == "other"


async def test_a_connection_that_the_server_has_closed_is_not_used(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        await asyncio.gather(*(in_transaction(database, _mark()) for _ in range(4)))
        async with database.transaction() as conn:
            await conn.execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )
            )
        await asyncio.sleep(0.2)
        for _ in range(4):
            assert await in_transaction(database, _mark()) == ()


async def test_who_is_cancelled_leaves_no_transaction_behind(postgres_url: str) -> None:
    def stuck() -> Steps[Sequence[Row]]:
        return (yield Ask({"postgresql": "SELECT pg_sleep(30)"}))

    async with opened(postgres_url) as database:
        for _ in range(3):
            task = asyncio.create_task(in_transaction(database, stuck()))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await in_transaction(database, _mark()) == ()
        async with database.read() as conn:
            query = "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'"
            left = await conn.scalar(text(f"{query} AND datname = current_database()"))
        assert left == 0


async def test_postgresql_has_no_marks(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        assert await in_transaction(database, _mark()) == ()
