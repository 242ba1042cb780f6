"""What is to be looked at, what was seen, and what has fired, in the relational database.

A check is a row (entitlement, reason) with a due time. `change` says that a balance may have
changed, `later` that usage with a time ahead begins to count then, and `look` that it is time to
look anyway; `period` stands at the end of the usage period; `grants` where an expiry comes into
sight.
Whoever changes a balance asks for a check in the same transaction, so that none is lost.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy import ColumnElement, and_, bindparam, delete, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.notifications.firing import Seen
from entitlements.notifications.model import EntitlementValue
from entitlements.notifications.stores import rules
from entitlements.notifications.stores.tables import checks, fired, seen
from meterline.db import mutex
from meterline.db.tables import upsert
from meterline.kernel.ids import new_ulid
from meterline.kernel.instants import from_micros, to_micros
from meterline.kernel.quantity import format_number

CHANGE = "change"
PERIOD = "period"
GRANTS = "grants"
LOOK = "look"
LATER = "later"
SWEEP = "sweep"
"""Look at every entitlement of the namespace that stands in place of an entitlement's id."""

RULES = "notification rules"
"""The name that changes of balances lock beside each other, and changes of rules alone."""

_AT_ONCE = 500
_STEP_MICROS = 5_000_000
_MOST_STEPS = 3


_place = tuple_(checks.c.entitlement_id, checks.c.reason)


@dataclass(frozen=True, slots=True)
class Check:
    """A claimed check. `stamp` names the request that it answers."""

    entitlement_id: str
    reason: str
    due_at: datetime
    stamp: str


async def request_check(conn: AsyncConnection, entitlement_id: str, now: datetime) -> None:
    """Have an entitlement looked at soon. Call it in the transaction that changes its balance.

    That is: a grant, a void, a reset, an override, a deletion, usage, and its creation.
    """
    await request_checks(conn, [entitlement_id], now)


async def request_checks(
    conn: AsyncConnection, ids: Iterable[str], now: datetime, later: Iterable[datetime] = ()
) -> None:
    """Have entitlements looked at soon, and at instants to come at which usage begins to count.

    Costs one look-up while no rule exists anywhere. Nothing is missed by that: whoever makes a
    rule has every entitlement looked at, once those who saw no rule have ended their transactions.
    """
    # In the order of ids, as all do, so that two who ask for the same do not wait in a circle.
    wanted = sorted(set(ids))
    if not wanted:
        return
    await mutex.beside(conn, RULES)
    if not await rules.any_active(conn):
        return
    await ask(conn, wanted, now)
    # In steps of some seconds and not too many of them: what lies further on is looked for.
    steps = sorted({-(-to_micros(at) // _STEP_MICROS) for at in later})[:_MOST_STEPS]
    due = [
        (one, f"{LATER} {step}", from_micros(step * _STEP_MICROS + 1_000))
        for one in wanted
        for step in steps
    ]
    await schedule(conn, due, now)


async def ask(conn: AsyncConnection, ids: Sequence[str], now: datetime) -> None:
    """Ask for checks. One that waits already keeps its time: it began to wait then."""
    statement = upsert(conn, checks, ["entitlement_id", "reason"], ["stamp", "claimed_until"])
    await conn.execute(statement, [_row(one, CHANGE, now, now) for one in ids])


async def schedule(
    conn: AsyncConnection, due: Sequence[tuple[str, str, datetime]], now: datetime
) -> None:
    """Put checks (entitlement, reason, due time) in place of those that stand there."""
    if not due:
        return
    statement = upsert(
        conn, checks, ["entitlement_id", "reason"], ["due_at", "stamp", "claimed_until"]
    )
    await conn.execute(statement, [_row(*one, now) for one in due])


def _row(entitlement_id: str, reason: str, due_at: datetime, now: datetime) -> dict[str, object]:
    return {
        "entitlement_id": entitlement_id,
        "reason": reason,
        "due_at": due_at,
        "stamp": new_ulid(now),
        "claimed_until": None,
    }


async def any_due(conn: AsyncConnection, now: datetime) -> bool:
    """Whether a check is waiting."""
    return (
        await conn.execute(select(checks.c.reason).where(_due(now)).limit(1))
    ).first() is not None


async def claim(
    conn: AsyncConnection, now: datetime, limit: int, lease: timedelta
) -> dict[str, list[Check]]:
    """Take the checks of up to `limit` entitlements; they are nobody else's for the lease."""
    oldest = select(checks.c.entitlement_id).where(_due(now)).order_by(checks.c.due_at).limit(limit)
    oldest = oldest.with_for_update(skip_locked=True)
    ids = sorted(set((await conn.execute(oldest)).scalars()))
    if not ids:
        return {}
    # All that is due of each, but what another transaction is at: that is for the next time.
    chosen = select(checks.c.entitlement_id, checks.c.reason).where(
        checks.c.entitlement_id.in_(ids), _due(now)
    )
    places = (await conn.execute(chosen.with_for_update(skip_locked=True))).all()
    result = await conn.execute(
        update(checks)
        .where(_place.in_([tuple(place) for place in places]))
        .values(claimed_until=now + lease)
        .returning(checks.c.entitlement_id, checks.c.reason, checks.c.due_at, checks.c.stamp)
    )
    claimed: dict[str, list[Check]] = {}
    for row in result:
        check = Check(row.entitlement_id, row.reason, row.due_at, row.stamp)
        claimed.setdefault(row.entitlement_id, []).append(check)
    return claimed


def _due(now: datetime) -> ColumnElement[bool]:
    free = or_(checks.c.claimed_until.is_(None), checks.c.claimed_until <= now)
    return and_(checks.c.due_at <= now, free)


async def done(conn: AsyncConnection, answered: Sequence[Check]) -> None:
    """Checks were made. One that was asked for again meanwhile stays."""
    if answered:
        statement = delete(checks).where(
            checks.c.entitlement_id == bindparam("of"),
            checks.c.reason == bindparam("why"),
            checks.c.stamp == bindparam("which"),
        )
        # In the order in which they are asked for.
        ordered = sorted(answered, key=lambda one: (one.reason != CHANGE, one.entitlement_id))
        rows = [
            {"of": one.entitlement_id, "why": one.reason, "which": one.stamp} for one in ordered
        ]
        await conn.execute(statement, rows)


async def forget(conn: AsyncConnection, entitlement_id: str) -> None:
    """The entitlement is not in force: look at it no more, unless somebody asks."""
    for reason in (PERIOD, GRANTS, LOOK):
        await drop(conn, [entitlement_id], reason)
    await conn.execute(delete(seen).where(seen.c.entitlement_id == entitlement_id))


async def drop(conn: AsyncConnection, ids: Sequence[str], reason: str) -> None:
    """No such checks are needed."""
    mine = checks.c.entitlement_id.in_(ids)
    await conn.execute(delete(checks).where(mine, checks.c.reason == reason))


async def load_seen(
    conn: AsyncConnection, ids: Sequence[str], *, lock: bool = False
) -> dict[str, tuple[str, Seen]]:
    """The namespaces of entitlements, and what was seen of them last.

    With `lock` nobody else sees more of them before this transaction has ended.
    """
    query = select(seen).where(seen.c.entitlement_id.in_(ids))
    if lock:
        query = query.order_by(seen.c.entitlement_id).with_for_update()
    return {
        row.entitlement_id: (row.namespace, Seen(row.period_start, Decimal(row.balance)))
        for row in await conn.execute(query)
    }


async def save_seen(conn: AsyncConnection, values: Sequence[EntitlementValue]) -> None:
    """Remember what was seen of entitlements."""
    if values:
        statement = upsert(conn, seen, ["entitlement_id"], ["period_start", "balance"])
        rows = [
            {
                "entitlement_id": value.entitlement_id,
                "namespace": value.namespace,
                "period_start": value.period.start,
                "balance": format_number(value.balance),
            }
            for value in sorted(values, key=lambda one: one.entitlement_id)
        ]
        await conn.execute(statement, rows)


async def forget_seen(conn: AsyncConnection, namespace: str) -> None:
    """Forget what was seen in a namespace."""
    await conn.execute(delete(seen).where(seen.c.namespace == namespace))


async def fire_once(conn: AsyncConnection, key: str, until: datetime) -> bool:
    """Whether `key` fires now for the first time. Of two processes one is told so."""
    statement = upsert(conn, fired, ["key"], []).values(key=key, until=until)
    return (await conn.execute(statement)).rowcount == 1


async def forget_fired(conn: AsyncConnection, now: datetime) -> int:
    """Forget keys that cannot fire again, some at a time; answers how many."""
    some = select(fired.c.key).where(fired.c.until < now).limit(_AT_ONCE)
    some = some.with_for_update(skip_locked=True)
    return (await conn.execute(delete(fired).where(fired.c.key.in_(some)))).rowcount
