"""Live entitlements: what a check needs, in one row, kept up to date by the sink.

A row is a cache. It is made by a full calculation, moved on by the sink in the transaction that
commits its position, and thrown away by whatever else changes a balance. `version` counts those
changes, so that a calculation that was overtaken by one is not kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance.exact import total
from entitlements.balance.standing import Standing
from entitlements.stores.entitlements import entitlements
from meterline.db.hot import HotReads
from meterline.db.tables import metadata, upsert
from meterline.kernel.instants import to_micros
from meterline.kernel.usage import Usage

live_entitlements = sa.Table(
    "live_entitlements",
    metadata,
    sa.Column("entitlement_id", sa.String(26), primary_key=True),
    sa.Column("namespace", sa.String(64), nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("feature_key", sa.String(64), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("valid", sa.Boolean, nullable=False),
    sa.Column("series", sa.Integer),
    sa.Column("counts", sa.Boolean, nullable=False),
    sa.Column("filters", sa.JSON, nullable=False),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Column("usage", sa.Text, nullable=False),
    sa.Column("due", sa.Text, nullable=False),
    sa.Column("state", sa.LargeBinary, nullable=False),
)
sa.Index(
    "ix_live_entitlements_feature",
    live_entitlements.c.namespace,
    live_entitlements.c.subject,
    live_entitlements.c.feature_key,
)
sa.Index(
    "ix_live_entitlements_cold",
    live_entitlements.c.entitlement_id,
    sqlite_where=sa.text("valid = 0"),
    postgresql_where=sa.text("NOT valid"),
)
sa.Index("ix_live_entitlements_series", live_entitlements.c.series, live_entitlements.c.subject)

_IN_ONE_GO = 500
_LOOK_UP = (
    "SELECT entitlement_id, series, usage, due, state FROM live_entitlements"
    " WHERE namespace = ? AND subject = ? AND feature_key = ? AND valid"
)
_LOOK_UP_ALL = (
    "SELECT entitlement_id, series, usage, due, state FROM live_entitlements"
    " WHERE namespace = ? AND subject = ? AND valid"
)
_COUNT_ACTIVE = (
    "SELECT count(*) FROM entitlements WHERE namespace = ? AND subject = ? AND ended_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class LiveState:
    """What does not change with usage. Without a standing, the answer is `has_access`."""

    feature_key: str
    start: datetime
    end: datetime | None
    is_soft_limit: bool = False
    config: str | None = None
    standing: Standing | None = None


Due = tuple[int, Decimal]
"""Usage that lies ahead: microseconds since 1970, and the amount."""


@dataclass(frozen=True, slots=True)
class LiveRow:
    """A live entitlement: its state, the usage since the standing's opening, and what is due."""

    entitlement_id: str
    series: int | None
    usage: Decimal
    due: tuple[Due, ...]
    state: LiveState

    def usage_at(self, now: datetime) -> Decimal:
        """The usage since the opening and before `now`."""
        if not self.due:
            return self.usage
        micros = to_micros(now)
        return total([self.usage, *(amount for at, amount in self.due if at < micros)])


@dataclass(frozen=True, slots=True)
class Tracking:
    """Which points of the store are a live entitlement's usage.

    `filters` are places in the series' dimensions with the texts that count; `counts` says that
    each point is one, whatever its value; points before `since` are none of it.
    """

    series: int
    counts: bool
    filters: tuple[tuple[int, tuple[str, ...]], ...]
    since: datetime


_ROW = msgspec.msgpack.Encoder()
_STATE = msgspec.msgpack.Decoder(LiveState)
_DUE = msgspec.json.Decoder(tuple[Due, ...])


class Stored(NamedTuple):
    """A row as it is kept. What it says depends on nothing else, so it can be remembered."""

    entitlement_id: str
    series: int | None
    usage: str
    due: str
    state: bytes


async def stored(hot: HotReads, namespace: str, subject: str, feature_key: str) -> Stored | None:
    """The row of a subject and feature, None when there is none that holds."""
    found = await hot.row(_LOOK_UP, (namespace, subject, feature_key))
    return None if found is None else Stored(*found)


async def all_stored(hot: HotReads, namespace: str, subject: str) -> list[Stored]:
    """The rows of a subject that hold."""
    return [Stored(*found) for found in await hot.rows(_LOOK_UP_ALL, (namespace, subject))]


def decode(row: Stored) -> LiveRow:
    """What a row says."""
    due = _DUE.decode(row.due) if row.due else ()
    state = _STATE.decode(row.state)
    return LiveRow(row.entitlement_id, row.series, Decimal(row.usage), due, state)


async def count_active(hot: HotReads, namespace: str, subject: str) -> int:
    """How many entitlements of a subject have not ended."""
    found = await hot.row(_COUNT_ACTIVE, (namespace, subject))
    return int(found[0]) if found else 0


async def version_of(
    conn: AsyncConnection, namespace: str, subject: str, feature_key: str
) -> tuple[str, int] | None:
    """The entitlement in force, and how often it was invalidated."""
    of, table = entitlements.c, live_entitlements
    found = await conn.execute(
        sa.select(of.id, sa.func.coalesce(table.c.version, 0))
        .select_from(entitlements.outerjoin(table, table.c.entitlement_id == of.id))
        .where(
            of.namespace == namespace,
            of.subject == subject,
            of.feature_key == feature_key,
            of.ended_at.is_(None),
        )
    )
    row = found.first()
    return None if row is None else (row[0], row[1])


async def invalidate(conn: AsyncConnection, entitlement_id: str) -> None:
    """Throw the row away, and any that is being calculated now."""
    table = live_entitlements
    changed = await conn.execute(
        sa.update(table)
        .where(table.c.entitlement_id == entitlement_id)
        .values(version=table.c.version + 1, valid=False)
    )
    if changed.rowcount == 0:
        empty = {
            "entitlement_id": entitlement_id, "namespace": "", "subject": "", "feature_key": "",
            "version": 1, "valid": False, "series": None, "counts": False, "filters": [],
            "since": 0, "usage": "0", "due": "", "state": b"",
        }  # fmt: skip
        await conn.execute(sa.insert(table).values(empty))


async def forget_subject(conn: AsyncConnection, namespace: str, subject: str) -> None:
    """Throw away all rows of a subject."""
    table = live_entitlements
    await conn.execute(
        sa.update(table)
        .where(table.c.namespace == namespace, table.c.subject == subject)
        .values(version=table.c.version + 1, valid=False)
    )


async def save(
    conn: AsyncConnection,
    namespace: str,
    subject: str,
    row: LiveRow,
    tracking: Tracking | None,
    version: int,
) -> None:
    """Keep a row that was calculated. Its version must be checked before, in this transaction."""
    values = {
        "entitlement_id": row.entitlement_id,
        "namespace": namespace,
        "subject": subject,
        "feature_key": row.state.feature_key,
        "version": version,
        "valid": True,
        "series": row.series,
        "counts": tracking is not None and tracking.counts,
        "filters": [] if tracking is None else tracking.filters,
        "since": 0 if tracking is None else to_micros(tracking.since),
        "usage": str(row.usage),
        "due": _due_text(row.due),
        "state": _ROW.encode(row.state),
    }
    names = [name for name in values if name != "entitlement_id"]
    statement = upsert(conn, live_entitlements, ["entitlement_id"], names)
    await conn.execute(statement.values(**values))


@dataclass(frozen=True, slots=True)
class Cold:
    """An entitlement whose row was thrown away, and how often that has happened."""

    entitlement_id: str
    namespace: str
    subject: str
    feature_key: str
    version: int


async def cold(conn: AsyncConnection, after: str, limit: int) -> list[Cold]:
    """Entitlements in force whose rows do not hold, by id, those after `after`."""
    of, table = entitlements.c, live_entitlements
    found = await conn.execute(
        sa.select(of.id, of.namespace, of.subject, of.feature_key, table.c.version)
        .join(table, table.c.entitlement_id == of.id)
        .where(~table.c.valid, of.ended_at.is_(None), of.id > after)
        .order_by(of.id)
        .limit(limit)
    )
    return [Cold(*row) for row in found]


@dataclass(frozen=True, slots=True)
class Followed:
    """A row that follows usage, and whose it is."""

    namespace: str
    subject: str
    row: LiveRow


async def followed(conn: AsyncConnection, after: str, limit: int) -> list[Followed]:
    """Rows that follow usage, by entitlement id, those after `after`."""
    table = live_entitlements
    found = await conn.execute(
        sa.select(table)
        .where(table.c.valid, table.c.series.is_not(None), table.c.entitlement_id > after)
        .order_by(table.c.entitlement_id)
        .limit(limit)
    )
    return [
        Followed(
            one.namespace,
            one.subject,
            decode(Stored(one.entitlement_id, one.series, one.usage, one.due, one.state)),
        )
        for one in found
    ]


async def apply(conn: AsyncConnection, usages: Sequence[Usage]) -> list[str]:
    """Add a step's usage to the rows that it concerns; answers the ids of those entitlements.

    Usage from before a row's opening changes what came before it: such a row is thrown away.
    """
    by_place: dict[tuple[int, str], list[Usage]] = {}
    for usage in usages:
        by_place.setdefault((usage.series, usage.subject), []).append(usage)
    moved: list[dict[str, str]] = []
    late: list[str] = []
    for row in await _tracked(conn, by_place):
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
    for part in _parts(late):
        await conn.execute(
            sa.update(table).where(table.c.entitlement_id.in_(part)).values(valid=False)
        )
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
    later = [*(_DUE.decode(row.due) if row.due else ()), *due]
    return {"usage": str(total([Decimal(row.usage), *amounts])), "due": _due_text(later)}


async def _tracked(conn: AsyncConnection, places: Iterable[tuple[int, str]]) -> list[Any]:
    table = live_entitlements
    columns = ("entitlement_id", "series", "subject", "counts", "filters", "since", "usage", "due")
    subjects: dict[int, list[str]] = {}
    for series, subject in places:
        subjects.setdefault(series, []).append(subject)
    found: list[Any] = []
    for series, all_of_it in subjects.items():
        for part in _parts(all_of_it):
            rows = await conn.execute(
                sa.select(*(table.c[name] for name in columns)).where(
                    table.c.series == series, table.c.subject.in_(part), table.c.valid
                )
            )
            found += rows.all()
    return found


def _parts(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[start : start + _IN_ONE_GO] for start in range(0, len(names), _IN_ONE_GO))


async def tracked_series(conn: AsyncConnection) -> set[int]:
    """The series whose points are some live entitlement's usage."""
    table = live_entitlements
    found = await conn.execute(sa.select(table.c.series).where(table.c.valid).distinct())
    return {series for series in found.scalars() if series is not None}


def _due_text(due: Sequence[Due]) -> str:
    return msgspec.json.encode(due).decode() if due else ""
