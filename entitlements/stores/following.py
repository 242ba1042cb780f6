"""The sink's side of live rows: each step's usage, added in the transaction that commits it.

Several sinks commit at the same time on PostgreSQL. They lock the rows of a step before they read
them, all in the same order, so that no usage is lost and none waits for another in a circle.
"""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance.exact import total
from entitlements.stores.live import Due, live_entitlements, read_due, write_due
from meterline.db.steps import Ask, Each, Steps, Write, on, update
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

_COLUMNS = (
    "l.entitlement_id, l.series, l.subject, l.counts, CAST(l.filters AS TEXT), l.since, l.usage,"
    " l.due"
)
_TRACKED = {
    "sqlite": f"SELECT {_COLUMNS} FROM (SELECT json_extract(value, '$[0]') AS series,"
    " json_extract(value, '$[1]') AS subject FROM json_each(?)) AS w"
    " CROSS JOIN live_entitlements AS l"
    " ON l.series = CAST(w.series AS INTEGER) AND l.subject = w.subject",
    "postgresql": f"SELECT {_COLUMNS} FROM unnest($1::text[], $2::text[]) AS w (series, subject)"
    " JOIN live_entitlements AS l ON l.series = w.series::integer AND l.subject = w.subject"
    " ORDER BY l.entitlement_id FOR UPDATE OF l",
}
_MOVE = update("live_entitlements", {"usage": "text", "due": "text"}, {"entitlement_id": "text"})


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


class _Tracked(NamedTuple):
    """A row that follows a series for a subject, whether it answers yet or not."""

    entitlement_id: str
    series: int
    subject: str
    counts: bool
    filters: str
    since: int
    usage: str
    due: str


async def apply(conn: AsyncConnection, usages: Sequence[Usage]) -> list[str]:
    """Add a step's usage to the rows that it concerns; answers the ids of those entitlements.

    Usage from before a row's opening changes what came before it: such a row is thrown away.
    """
    moved, late = await on(conn, _move(usages))
    table = live_entitlements
    for start in range(0, len(late), _IN_ONE_GO):
        await _throw_away(conn, table.c.entitlement_id.in_(late[start : start + _IN_ONE_GO]))
    return moved + late


def _move(usages: Sequence[Usage]) -> Steps[tuple[list[str], list[str]]]:
    """Move the rows on; answers the ids of those, and of the rows for which a usage is too late."""
    by_place: dict[tuple[int, str], list[Usage]] = {}
    for usage in usages:
        by_place.setdefault((usage.series, usage.subject), []).append(usage)
    asked = [(str(series), subject) for series, subject in sorted(by_place)]
    found = (yield Ask(_TRACKED, keys=asked)) if asked else ()
    moved: list[tuple[str, str, str]] = []
    late: list[str] = []
    for row in map(_Tracked._make, found):
        change = _change(row, by_place[row.series, row.subject])
        if change is None:
            late.append(row.entitlement_id)
        elif change:
            moved.append((*change, row.entitlement_id))
    yield Write([Each(_MOVE, moved)])
    return [row[2] for row in moved], late


def _change(row: _Tracked, usages: Sequence[Usage]) -> tuple[str, str] | tuple[()] | None:
    """Usage and what is due, empty for no change; None when the usages are too late for the row."""
    amounts: list[Decimal] = []
    due: list[Due] = []
    filters = json.loads(row.filters)
    for usage in usages:
        if all(usage.dims[place] in texts for place, texts in filters):
            if to_micros(usage.earliest) < row.since:
                return None
            amount = Decimal(usage.count) if row.counts else usage.value
            if usage.due is None:
                amounts.append(amount)
            else:
                due.append((to_micros(usage.due), amount))
    if not amounts and not due:
        return ()
    used = total([Decimal(row.usage), *amounts])
    return str(used), write_due([*read_due(row.due), *due])
