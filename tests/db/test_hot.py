"""Hot reads: the same answers from every database, and what was committed before."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from meterline.db.engine import Database
from meterline.db.hot import HotReads, open_hot_reads
from portal.store import secrets

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ONE = "SELECT name, value FROM secrets WHERE name = ?"
BOTH = "SELECT name FROM secrets WHERE name = ? AND value = ? AND length(value) < ?"


@pytest.fixture
async def hot(any_url: str, any_database: Database) -> AsyncIterator[HotReads]:
    reads = open_hot_reads(any_url)
    yield reads
    await reads.close()


async def add(database: Database, *names: str) -> None:
    async with database.transaction() as conn:
        rows = [{"name": name, "value": f"of {name}", "created_at": EPOCH} for name in names]
        await conn.execute(secrets.insert(), rows)


async def test_a_row_is_found_by_its_parameters(any_database: Database, hot: HotReads) -> None:
    await add(any_database, "a", "ü")
    assert await hot.row(ONE, ["ü"]) == ("ü", "of ü")
    assert await hot.row(ONE, ["b"]) is None
    assert await hot.rows(BOTH, ["a", "of a", 10]) == [("a",)]
    assert await hot.rows(BOTH, ["a", "of a", 1]) == []


async def test_many_at_once_get_their_own_answers(any_database: Database, hot: HotReads) -> None:
    names = [f"n{number}" for number in range(300)]
    await add(any_database, *names)
    found = await asyncio.gather(*(hot.rows(ONE, [name]) for name in [*names, "none", *names]))
    of_each = [[(name, f"of {name}")] for name in names]
    assert found == [*of_each, [], *of_each]


async def test_what_was_committed_is_seen(any_database: Database, hot: HotReads) -> None:
    async def write_and_read(number: int) -> bool:
        await add(any_database, f"n{number}")
        return await hot.row(ONE, [f"n{number}"]) is not None

    assert all(await asyncio.gather(*(write_and_read(number) for number in range(40))))


async def test_nothing_is_found_under_names_that_nothing_can_have(
    any_database: Database, hot: HotReads
) -> None:
    await add(any_database, "a")
    found = await asyncio.gather(*(hot.row(ONE, [name]) for name in ("a", "a\0", "\0", "a")))
    assert found == [("a", "of a"), None, None, ("a", "of a")]
