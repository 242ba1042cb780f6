from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import text

from meterline.db.steps import (
    Each,
    Mark,
    Row,
    Steps,
    Write,
    _for_postgresql,
    in_transaction,
    insert,
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


def test_changes_without_rows_are_none() -> None:
    assert _for_postgresql(Write([Each(insert("a", {"x": "text"}), [])])) == ("", [])


def test_sqlite_takes_row_by_row() -> None:
    assert insert("a", {"x": "text", "y": "text"})["sqlite"] == "INSERT INTO a (x, y) VALUES (?, ?)"
    moved = update("b", {"x": "text", "y": "text"}, {"k": "text"})
    assert moved["sqlite"] == "UPDATE b SET x = ?, y = ? WHERE k = ?"


def _mark() -> Steps[Sequence[Row]]:
    return (yield Mark())


def _note(text: str) -> Steps[Sequence[Row]]:
    yield Write([Each(insert("notes", {"text": "text"}), [(text,)])])
    return (yield Mark())


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


async def test_postgresql_has_no_marks(postgres_url: str) -> None:
    async with opened(postgres_url) as database:
        assert await in_transaction(database, _mark()) == ()
