"""Live entitlements: what a check needs, in one row, kept up to date by the sink.

A row is a cache. It is built by a full calculation, moved on by the sink in the transaction that
commits its position (`entitlements.stores.following`), and thrown away by whatever else changes a
balance. `version` counts those changes, so that a calculation that was overtaken is not kept.

A row is in one of three states. *Cold*: it follows no series and answers nothing. *Building*
(`building_since` is set): it follows its series already, and answers nothing yet; a calculation of
what came before is under way. *Valid*: it answers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.access import Access, Lifetime, boolean_access, metered_access, static_access
from entitlements.balance.exact import ROOM, ZERO, total
from entitlements.balance.standing import Standing
from entitlements.stores.entitlements import entitlements
from meterline.db.hot import HotReads
from meterline.db.tables import metadata, upsert
from meterline.kernel.instants import to_micros

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
    sa.Column("building_since", sa.BigInteger),
    sa.Column("until", sa.BigInteger),
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
sa.Index(
    "ix_live_entitlements_until",
    live_entitlements.c.until,
    sqlite_where=sa.text("valid = 1"),
    postgresql_where=sa.text("valid"),
)

_ROW_AND_HELD = (
    "SELECT l.entitlement_id, l.series, l.usage, l.due, l.state, a.held, a.pending, a.next_expiry"
    " FROM live_entitlements AS l LEFT JOIN hold_accounts AS a"
    " ON a.namespace = l.namespace AND a.subject = l.subject AND a.feature_key = l.feature_key"
)
_OF_SUBJECT = " WHERE l.namespace = ? AND l.subject = ? AND l.valid"
_LOOK_UP = _ROW_AND_HELD + _OF_SUBJECT + " AND l.feature_key = ?"
_LOOK_UP_ALL = _ROW_AND_HELD + _OF_SUBJECT
# The same, with the holds that have expired since and are still part of `held`, a row for each.
_LOOK_UP_EXPIRED = (
    _ROW_AND_HELD.replace(" FROM", ", h.amount FROM")
    + " LEFT JOIN holds AS h ON h.namespace = l.namespace AND h.subject = l.subject"
    " AND h.feature_key = l.feature_key AND h.state = 'open' AND h.expires_at <= ?"
    + _OF_SUBJECT
    + " AND l.feature_key = ?"
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
    held: Decimal = ZERO
    """Set aside by open holds."""
    pending: Decimal = ZERO
    """Confirmed by holds, and not yet part of the usage."""

    def usage_at(self, now: datetime) -> Decimal:
        """The usage since the opening and before `now`."""
        if not self.due:
            return self.usage
        micros = to_micros(now)
        return total([self.usage, *(amount for at, amount in self.due if at < micros)])


def answer(row: LiveRow, at: datetime) -> Access | None:
    """What a row says of an instant, None when it knows nothing of it; not dated otherwise."""
    state, standing = row.state, row.state.standing
    lifetime = Lifetime(state.start, state.end)
    if standing is None:
        if state.config is not None:
            return static_access(at, lifetime, state.config)
        return boolean_access(at, lifetime)
    if at not in standing:
        return None
    balance = standing.balance(row.usage_at(at), at)
    return metered_access(
        balance,
        lifetime,
        is_soft_limit=state.is_soft_limit,
        held=row.held,
        pending=row.pending,
    )


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


def read_due(text: str) -> tuple[Due, ...]:
    """Usage that lies ahead, from the text of its column."""
    return _DUE.decode(text) if text else ()


def write_state(state: LiveState) -> bytes:
    """What does not change with usage, as it is kept."""
    return _ROW.encode(state)


def write_due(due: Sequence[Due]) -> str:
    """The text of usage that lies ahead."""
    return msgspec.json.encode(due).decode() if due else ""


class Stored(NamedTuple):
    """A row as it is kept. What it says depends on nothing else, so it can be remembered."""

    entitlement_id: str
    series: int | None
    usage: str
    due: str
    state: bytes
    held: str | None = None
    pending: str | None = None
    next_expiry: int | None = None
    """From when some of what is held may be held no more, in microseconds since 1970."""


async def stored(hot: HotReads, namespace: str, subject: str, feature_key: str) -> Stored | None:
    """The row of a subject and feature, None when there is none that holds."""
    found = await hot.row(_LOOK_UP, (namespace, subject, feature_key))
    return None if found is None else Stored(*found)


async def stored_at(
    hot: HotReads, namespace: str, subject: str, feature_key: str, now: datetime
) -> Stored | None:
    """The same, without what has expired of holds at an instant."""
    row = await stored(hot, namespace, subject, feature_key)
    micros = to_micros(now)
    if row is None or row.next_expiry is None or micros < row.next_expiry:
        return row
    found = await hot.rows(_LOOK_UP_EXPIRED, (micros, namespace, subject, feature_key))
    if not found:
        return None
    row = Stored(*found[0][:-1])
    expired = total(Decimal(one[-1]) for one in found if one[-1] is not None)
    return row._replace(held=str(ROOM.subtract(Decimal(row.held or 0), expired)))


async def all_stored(hot: HotReads, namespace: str, subject: str) -> list[Stored]:
    """The rows of a subject that hold."""
    return [Stored(*found) for found in await hot.rows(_LOOK_UP_ALL, (namespace, subject))]


def decode(row: Stored) -> LiveRow:
    """What a row says."""
    state = _STATE.decode(row.state)
    return LiveRow(
        row.entitlement_id,
        row.series,
        Decimal(row.usage),
        read_due(row.due),
        state,
        Decimal(row.held or 0),
        Decimal(row.pending or 0),
    )


async def count_active(hot: HotReads, namespace: str, subject: str) -> int:
    """How many entitlements of a subject have not ended."""
    found = await hot.row(_COUNT_ACTIVE, (namespace, subject))
    return int(found[0]) if found else 0


@dataclass(frozen=True, slots=True)
class Kept:
    """The entitlement in force, and where its row is."""

    entitlement_id: str
    version: int
    """How often the row was thrown away or built anew; 0 when there is none yet."""
    building_since: int | None
    """Microseconds since 1970, when somebody builds it."""


async def kept(
    conn: AsyncConnection, namespace: str, subject: str, feature_key: str
) -> Kept | None:
    """The entitlement in force, None when there is none."""
    of, table = entitlements.c, live_entitlements
    found = await conn.execute(
        sa.select(of.id, sa.func.coalesce(table.c.version, 0), table.c.building_since)
        .select_from(entitlements.outerjoin(table, table.c.entitlement_id == of.id))
        .where(
            of.namespace == namespace,
            of.subject == subject,
            of.feature_key == feature_key,
            of.ended_at.is_(None),
        )
    )
    row = found.first()
    return None if row is None else Kept(*row)


async def invalidate(conn: AsyncConnection, entitlement_id: str) -> None:
    """Throw the row away, and any that is being built now."""
    table = live_entitlements
    statement = upsert(conn, table, ["entitlement_id"], []).values(
        entitlement_id=entitlement_id, **EMPTY, **cold_values(1)
    )
    # A row that another transaction adds meanwhile is waited for, and then thrown away, too.
    if (await conn.execute(statement)).rowcount == 0:
        await conn.execute(
            sa.update(table)
            .where(table.c.entitlement_id == entitlement_id)
            .values(**cold_values(table.c.version + 1))
        )


EMPTY: Mapping[str, Any] = {
    "namespace": "", "subject": "", "feature_key": "", "counts": False, "filters": [],
    "since": 0, "usage": "0", "due": "", "state": b"",
}  # fmt: skip


def cold_values(version: Any) -> dict[str, Any]:
    """The columns of a row that was thrown away."""
    return {
        "version": version,
        "valid": False,
        "series": None,
        "building_since": None,
        "until": None,
    }


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
