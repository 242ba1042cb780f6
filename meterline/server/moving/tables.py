"""The tables of the relational database, from one to the other, row by row.

All of them but those that say how the sink of one store works: series, plans and positions are made
anew. Live rows are copied cold, since they name a series: each is calculated when it is needed.
"""

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

import meterline.server.assembly  # noqa: F401  # All domains tell of their tables.
from aggregator.stores.state import MOVED, dead_letters
from entitlements.stores.live import cold_values, live_entitlements
from meterline.db.tables import metadata

_PAGE = 1_000
LEFT_OUT = frozenset(
    {"sink_state", "sink_partitions", "sink_plans", "series", "series_users", "moves"}
)
"""Tables that are the deployment's own."""
MAY_HAVE_ROWS = {"api_keys": "prefix", "secrets": "name"}
"""Tables that a deployment has rows in before anything is moved, as its first key; and the column
that tells them apart."""

Row = dict[str, Any]


def moved_tables() -> list[sa.Table]:
    """The tables that are copied, those that others refer to first."""
    return [table for table in metadata.sorted_tables if table.name not in LEFT_OUT]


async def require_known(conn: AsyncConnection) -> None:
    """Raises `RuntimeError` unless the database has just the tables that are known here.

    A module that was not imported has not told of its tables, and they would be forgotten.
    """
    found = await conn.run_sync(lambda inner: set(sa.inspect(inner).get_table_names()))
    if wrong := (found - {"alembic_version"}) ^ set(metadata.tables):
        raise RuntimeError(f"tables that are unknown, or missing: {', '.join(sorted(wrong))}")


async def count_rows(conn: AsyncConnection) -> int:
    """Rows in all tables that are copied."""
    return sum([await _count(conn, table) for table in moved_tables()])


async def filled_tables(conn: AsyncConnection) -> list[str]:
    """Tables of a target that have rows and must not."""
    return [
        table.name
        for table in moved_tables()
        if table.name not in MAY_HAVE_ROWS and await _count(conn, table)
    ]


async def _count(conn: AsyncConnection, table: sa.Table) -> int:
    query = sa.select(sa.func.count()).select_from(table)
    return int((await conn.execute(query)).scalar_one())


async def clear_tables(conn: AsyncConnection) -> None:
    """Throw away what was copied into a target."""
    for table in reversed(moved_tables()):
        if table.name not in MAY_HAVE_ROWS:
            await conn.execute(sa.delete(table))


async def copy_table(
    source: AsyncConnection, target: AsyncConnection, table: sa.Table
) -> AsyncIterator[int]:
    """Copy a table's rows; yields how many they are, page by page."""
    async for rows in _pages(source, table):
        if (name := MAY_HAVE_ROWS.get(table.name)) is not None:
            # The folder's row wins: a key that was revoked there stays so.
            known = table.c[name].in_([row[name] for row in rows])
            await target.execute(sa.delete(table).where(known))
        await target.execute(sa.insert(table), rows)
        yield len(rows)


async def _pages(conn: AsyncConnection, table: sa.Table) -> AsyncIterator[list[Row]]:
    """A table's rows as a target has them."""
    found = await conn.stream(sa.select(table).order_by(*table.primary_key))
    async for page in found.mappings().partitions(_PAGE):
        yield [_moved(table, dict(row)) for row in page]


def _moved(table: sa.Table, row: Row) -> Row:
    if table is live_entitlements:
        return row | cold_values(row["version"] + 1)
    if table is dead_letters:
        return row | {"part": MOVED}
    return row


async def differing_tables(source: AsyncConnection, target: AsyncConnection) -> list[str]:
    """Tables that do not say the same on both sides, and what each has."""
    wrong = []
    for table in moved_tables():
        wanted = await _digests(_pages(source, table))
        found = await _digests(_plain_pages(target, table))
        same = wanted <= found if table.name in MAY_HAVE_ROWS else wanted == found
        if table is not live_entitlements and not same:
            wrong.append(f"{table.name} ({len(wanted)} rows, and {len(found)})")
    return wrong


async def _plain_pages(conn: AsyncConnection, table: sa.Table) -> AsyncIterator[list[Row]]:
    found = await conn.stream(sa.select(table))
    async for page in found.mappings().partitions(_PAGE):
        yield [dict(row) for row in page]


async def _digests(pages: AsyncIterator[list[Row]]) -> set[bytes]:
    """What stands for the rows of a table, which are all different."""
    return {_digest(row) async for rows in pages for row in rows}


def _digest(row: Row) -> bytes:
    # JSON, as the order of members does not matter; `repr` for what JSON has not.
    text = json.dumps(row, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).digest()
