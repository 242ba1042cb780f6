"""What plans know of subjects, in the relational database. Functions run in a transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance.exact import ROOM, ZERO
from entitlements.builtin import COST, TOKENS
from entitlements.plans.model import Ban, Happening, HistoryEntry, Member, Plan
from entitlements.plans.stores.plans import by_id, overrides_of, overrides_text
from entitlements.plans.stores.tables import history, members
from meterline.db.hot import HotReads
from meterline.db.tables import upsert

_LIVE = "LEFT JOIN live_entitlements {a} ON {a}.namespace = m.namespace AND {a}.subject = m.subject"
_HELD = "LEFT JOIN hold_accounts {a} ON {a}.namespace = m.namespace AND {a}.subject = m.subject"
_LOOK_UP = (
    "SELECT m.overrides, m.banned_at, m.ban_reason, p.key, p.limits,"
    " t.series, t.usage, t.due, t.state, c.series, c.usage, c.due, c.state,"
    " th.held, th.pending, th.next_expiry, ch.held, ch.pending, ch.next_expiry"
    " FROM plan_members m LEFT JOIN plans p ON p.id = m.plan_id"
    f" {_LIVE.format(a='t')} AND t.feature_key = '{TOKENS}' AND t.valid"
    f" {_LIVE.format(a='c')} AND c.feature_key = '{COST}' AND c.valid"
    f" {_HELD.format(a='th')} AND th.feature_key = '{TOKENS}'"
    f" {_HELD.format(a='ch')} AND ch.feature_key = '{COST}'"
    " WHERE m.namespace = ? AND m.subject = ?"
)


class LiveUsage(NamedTuple):
    """A live row's part of a look-up; all None without one that holds."""

    series: int | None
    usage: str | None
    due: str | None
    state: bytes | None


class Set(NamedTuple):
    """What is set aside of a month's usage, as far as nothing expires before `next_expiry`."""

    total: Decimal
    next_expiry: int | None
    """Microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What a check needs of a subject, as it is kept."""

    overrides: str
    is_banned: bool
    ban_reason: str | None
    plan: str | None
    """Key."""
    limits: str | None
    tokens: LiveUsage
    cost: LiveUsage
    tokens_set: Set
    cost_set: Set


async def look_up(hot: HotReads, namespace: str, subject: str) -> Looked | None:
    """The subject's plan, overrides, ban and live usage; None when plans know nothing of it."""
    row = await hot.row(_LOOK_UP, (namespace, subject))
    if row is None:
        return None
    return Looked(
        row[0],
        row[1] is not None,
        row[2],
        row[3],
        row[4],
        LiveUsage(row[5], row[6], row[7], row[8]),
        LiveUsage(row[9], row[10], row[11], row[12]),
        _set(row[13], row[14], row[15]),
        _set(row[16], row[17], row[18]),
    )


def _set(held: str | None, pending: str | None, next_expiry: int | None) -> Set:
    if held is None or pending is None:
        return _NOTHING
    if held == "0" and pending == "0":
        return _NOTHING
    return Set(ROOM.add(Decimal(held), Decimal(pending)), next_expiry)


_NOTHING = Set(ZERO, None)


async def find(
    conn: AsyncConnection, namespace: str, subject: str, *, lock: bool = False
) -> Member | None:
    """What plans know of a subject. With `lock` nobody else changes it in this transaction."""
    query = sa.select(members).where(members.c.namespace == namespace, members.c.subject == subject)
    row = (await conn.execute(query.with_for_update() if lock else query)).first()
    if row is None:
        return None
    plan = None if row.plan_id is None else await by_id(conn, row.plan_id)
    return _member(row, plan)


async def make(conn: AsyncConnection, namespace: str, subject: str) -> None:
    """Let plans know of a subject, if they do not yet."""
    statement = upsert(conn, members, ["namespace", "subject"], [])
    values = {
        "namespace": namespace, "subject": subject, "overrides": "{}", "pending": False,
        "version": 1,
    }  # fmt: skip
    await conn.execute(statement.values(**values))


async def save(
    conn: AsyncConnection, member: Member, *, pending: bool, due_at: datetime | None
) -> None:
    """Keep what is known of a subject now, which the caller has locked."""
    await conn.execute(
        sa.update(members)
        .where(members.c.namespace == member.namespace, members.c.subject == member.subject)
        .values(
            plan_id=member.plan.id if member.plan else None,
            overrides=overrides_text(member.overrides),
            assigned_at=member.assigned_at,
            banned_at=member.ban.at if member.ban else None,
            ban_reason=member.ban.reason if member.ban else None,
            refill_anchor=member.refill_anchor,
            pending=pending,
            due_at=due_at,
            version=members.c.version + 1,
        )
    )


async def work_of(
    conn: AsyncConnection, namespace: str, subject: str
) -> tuple[bool, datetime | None]:
    """What is left to do for a subject: `pending` and `due_at` of `save`."""
    query = sa.select(members.c.pending, members.c.due_at)
    mine = (members.c.namespace == namespace, members.c.subject == subject)
    row = (await conn.execute(query.where(*mine))).one()
    return row.pending, row.due_at


async def to_align(conn: AsyncConnection, now: datetime, limit: int) -> Sequence[tuple[str, str]]:
    """Subjects whose entitlements are to be brought in line, or who are due a refill."""
    of = members.c
    columns = sa.select(of.namespace, of.subject)
    found = list(await conn.execute(columns.where(of.pending).limit(limit)))
    if len(found) < limit:
        due = columns.where(of.due_at <= now).order_by(of.due_at)
        found += list(await conn.execute(due.limit(limit - len(found))))
    return list(dict.fromkeys((row[0], row[1]) for row in found))


async def of_plan(
    conn: AsyncConnection, plan_id: str, after: str | None, limit: int
) -> Sequence[str]:
    """The subjects of a plan, by key."""
    query = sa.select(members.c.subject).where(members.c.plan_id == plan_id)
    if after is not None:
        query = query.where(members.c.subject > after)
    found = await conn.execute(query.order_by(members.c.subject).limit(limit))
    return list(found.scalars())


async def note(conn: AsyncConnection, namespace: str, subject: str, entry: HistoryEntry) -> None:
    """Write down what happened."""
    await conn.execute(
        sa.insert(history).values(
            id=entry.id,
            namespace=namespace,
            subject=subject,
            at=entry.at,
            kind=entry.kind.value,
            plan=entry.plan,
            reason=entry.reason,
            source=entry.source,
            data=dict(entry.data),
        )
    )


async def last_noted(conn: AsyncConnection, namespace: str, subject: str) -> datetime | None:
    """When the last thing happened to a subject that was written down."""
    of = history.c
    query = sa.select(of.at).where(of.namespace == namespace, of.subject == subject)
    found: datetime | None = await conn.scalar(query.order_by(of.id.desc()).limit(1))
    return found


async def history_of(
    conn: AsyncConnection, namespace: str, subject: str, before: str | None, limit: int
) -> list[HistoryEntry]:
    """What happened to a subject, newest first, from before the entry with the id `before`."""
    of = history.c
    query = sa.select(history).where(of.namespace == namespace, of.subject == subject)
    if before is not None:
        query = query.where(of.id < before)
    rows = await conn.execute(query.order_by(of.id.desc()).limit(limit))
    return [
        HistoryEntry(
            row.id, row.at, Happening(row.kind), row.plan, row.reason, row.source, row.data
        )
        for row in rows
    ]


async def erase(conn: AsyncConnection, namespace: str, subject: str) -> None:
    """Forget a subject."""
    for table in (members, history):
        await conn.execute(
            sa.delete(table).where(table.c.namespace == namespace, table.c.subject == subject)
        )


def _member(row: sa.Row[Any], plan: Plan | None) -> Member:
    return Member(
        namespace=row.namespace,
        subject=row.subject,
        plan=plan,
        overrides=overrides_of(row.overrides),
        assigned_at=row.assigned_at,
        ban=Ban(row.banned_at, row.ban_reason or "") if row.banned_at else None,
        refill_anchor=row.refill_anchor,
    )
