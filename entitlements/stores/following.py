"""The sink's side of live rows: each step's usage, added in the transaction that commits it.

Several sinks commit at the same time on PostgreSQL. They lock the rows of a step before they read
them, all in the same order, so that no usage is lost and none waits for another in a circle.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance.exact import total
from entitlements.stores.live import Due, live_entitlements, read_due, write_due
from meterline.kernel.instants import to_micros
from meterline.kernel.usage import Usage

_IN_ONE_GO = 500

_SERIES = sa.text(
    # One step down the index for each series, instead of a look at every row.
    "WITH RECURSIVE known(series) AS ("
    " SELECT min(series) FROM live_entitlements"
    " UNION ALL"
    " SELECT (SELECT min(series) FROM live_entitlements WHERE series > known.series)"
    " FROM known WHERE known.series IS NOT NULL"
    ") SELECT series FROM known WHERE series IS NOT NULL"
)

_COLUMNS = [
    live_entitlements.c[name]
    for name in (
        "entitlement_id",
        "series",
        "subject",
        "counts",
        "filters",
        "since",
        "usage",
        "due",
    )
]


async def tracked_series(conn: AsyncConnection) -> set[int]:
    """The series whose points are some live entitlement's usage."""
    return set((await conn.execute(_SERIES)).scalars())


async def forget_subject(conn: AsyncConnection, namespace: str, subject: str) -> None:
    """Throw away all rows of a subject."""
    table = live_entitlements
    await _throw_away(conn, table.c.namespace == namespace, table.c.subject == subject)


async def _throw_away(conn: AsyncConnection, *which: sa.ColumnElement[bool]) -> None:
    table = live_entitlements
    await conn.execute(
        sa.update(table)
        .where(*which)
        .values(
            version=table.c.version + 1, valid=False, series=None, building_since=None, until=None
        )
    )


async def apply(conn: AsyncConnection, usages: Sequence[Usage]) -> list[str]:
    """Add a step's usage to the rows that it concerns; answers the ids of those entitlements.

    Usage from before a row's opening changes what came before it: such a row is thrown away.
    """
    by_place: dict[tuple[int, str], list[Usage]] = {}
    for usage in usages:
        by_place.setdefault((usage.series, usage.subject), []).append(usage)
    moved: list[dict[str, str]] = []
    late: list[str] = []
    for row in await _tracked(conn, sorted(by_place)):
        change = _change(row, by_place[row.series, row.subject])
        if change is None:
            late.append(row.entitlement_id)
        elif change:
            moved.append({"of": row.entitlement_id, **change})
    table = live_entitlements
    if moved:
        await conn.execute(
            sa.update(table)
            .where(table.c.entitlement_id == sa.bindparam("of"))
            .values(usage=sa.bindparam("usage"), due=sa.bindparam("due")),
            moved,
        )
    for start in range(0, len(late), _IN_ONE_GO):
        await _throw_away(conn, table.c.entitlement_id.in_(late[start : start + _IN_ONE_GO]))
    return [row["of"] for row in moved] + late


def _change(row: Any, usages: Sequence[Usage]) -> dict[str, str] | None:
    """The columns that usages change, empty for none; None when they are too late for the row."""
    amounts: list[Decimal] = []
    due: list[Due] = []
    for usage in usages:
        if all(usage.dims[place] in texts for place, texts in row.filters):
            if to_micros(usage.earliest) < row.since:
                return None
            amount = Decimal(usage.count) if row.counts else usage.value
            if usage.due is None:
                amounts.append(amount)
            else:
                due.append((to_micros(usage.due), amount))
    if not amounts and not due:
        return {}
    return {
        "usage": str(total([Decimal(row.usage), *amounts])),
        "due": write_due([*read_due(row.due), *due]),
    }


async def _tracked(conn: AsyncConnection, places: Sequence[tuple[int, str]]) -> list[Any]:
    """The rows that follow a series for a subject, whether they answer yet or not."""
    if conn.dialect.name == "postgresql":
        return await _locked(conn, places)
    table = live_entitlements
    subjects: dict[int, list[str]] = {}
    for series, subject in places:
        subjects.setdefault(series, []).append(subject)
    found: list[Any] = []
    for series, names in subjects.items():
        for start in range(0, len(names), _IN_ONE_GO):
            some = table.c.subject.in_(names[start : start + _IN_ONE_GO])
            found += await conn.execute(sa.select(*_COLUMNS).where(table.c.series == series, some))
    return found


async def _locked(conn: AsyncConnection, places: Sequence[tuple[int, str]]) -> list[Any]:
    table = live_entitlements
    asked = (
        sa.func.unnest(
            sa.bindparam("series", [series for series, _ in places], ARRAY(sa.Integer)),
            sa.bindparam("subjects", [subject for _, subject in places], ARRAY(sa.Text)),
        )
        .table_valued(sa.column("series", sa.Integer), sa.column("subject", sa.Text))
        .render_derived("asked")
    )
    found = await conn.execute(
        sa.select(*_COLUMNS)
        .join(asked, sa.and_(table.c.series == asked.c.series, table.c.subject == asked.c.subject))
        .order_by(table.c.entitlement_id)
        .with_for_update(of=table)
    )
    return list(found)
