"""What Stripe told us, in the relational database. Functions run in the caller's transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.plans.payments.judge import Subscription, SubscriptionState
from entitlements.plans.stores.tables import stripe_events, stripe_invoices, subscriptions
from meterline.db.tables import upsert

_FORGOTTEN_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Received:
    """An event of Stripe, and what became of it."""

    id: str
    type: str
    created_at: datetime
    received_at: datetime
    subject: str | None
    subscription: str | None
    outcome: str
    reason: str | None
    plan: str | None


async def add_event(conn: AsyncConnection, namespace: str, event: Received) -> bool:
    """Keep an event; False when its id is known."""
    statement = upsert(conn, stripe_events, ["namespace", "id"], [])
    values = {name: getattr(event, name) for name in Received.__slots__}
    done = await conn.execute(statement.values(namespace=namespace, **values))
    return bool(done.rowcount == 1)


async def tell(
    conn: AsyncConnection,
    namespace: str,
    event_id: str,
    outcome: str,
    reason: str | None,
    plan: str | None,
) -> None:
    """Write what became of an event."""
    of = stripe_events.c
    await conn.execute(
        sa.update(stripe_events)
        .where(of.namespace == namespace, of.id == event_id)
        .values(outcome=outcome, reason=reason, plan=plan)
    )


async def events(
    conn: AsyncConnection,
    namespace: str,
    *,
    outcome: str | None,
    subject: str | None,
    offset: int,
    limit: int,
) -> list[Received]:
    """Events, newest first."""
    of = stripe_events.c
    query = sa.select(stripe_events).where(of.namespace == namespace)
    if outcome is not None:
        query = query.where(of.outcome == outcome)
    if subject is not None:
        query = query.where(of.subject == subject)
    query = query.order_by(of.received_at.desc(), of.id.desc()).offset(offset).limit(limit)
    return [
        Received(*(getattr(row, name) for name in Received.__slots__))
        for row in await conn.execute(query)
    ]


async def lock_subscription(
    conn: AsyncConnection, namespace: str, subscription_id: str
) -> Subscription | None:
    """What is known of a subscription; nobody else changes it in this transaction."""
    of = subscriptions.c
    query = sa.select(subscriptions).where(of.namespace == namespace, of.id == subscription_id)
    row = (await conn.execute(query.with_for_update())).first()
    return _subscription(row) if row else None


async def save_subscription(conn: AsyncConnection, namespace: str, one: Subscription) -> None:
    """Keep a subscription as it is now."""
    values = {
        "subject": one.subject,
        "state": one.state.value,
        "changed_at": one.changed_at,
        "plan": one.plan,
        "fallback": one.fallback,
        "failed_period": one.failed_period,
        "grace_until": one.grace_until,
    }
    statement = upsert(conn, subscriptions, ["namespace", "id"], list(values))
    await conn.execute(statement.values(namespace=namespace, id=one.id, **values))


async def others(
    conn: AsyncConnection, namespace: str, subject: str, but: str
) -> Sequence[Subscription]:
    """A subject's other subscriptions that are paid for, the newest first."""
    of = subscriptions.c
    query = sa.select(subscriptions).where(
        of.namespace == namespace,
        of.subject == subject,
        of.id != but,
        of.state == SubscriptionState.ACTIVE.value,
        of.plan.is_not(None),
    )
    rows = await conn.execute(query.order_by(of.changed_at.desc(), of.id))
    return [_subscription(row) for row in rows]


async def graces(
    conn: AsyncConnection, now: datetime, limit: int
) -> Sequence[tuple[str, str, str]]:
    """Subscriptions whose grace is over: namespace, id and subject."""
    of = subscriptions.c
    query = sa.select(of.namespace, of.id, of.subject).where(of.grace_until <= now)
    rows = await conn.execute(query.order_by(of.grace_until).limit(limit))
    return [(row[0], row[1], row[2]) for row in rows]


async def add_invoice(
    conn: AsyncConnection,
    namespace: str,
    invoice_id: str,
    subject: str,
    credits: Decimal,
    paid_at: datetime,
) -> bool:
    """Note that a payment grants credits; False when it has done so before."""
    statement = upsert(conn, stripe_invoices, ["namespace", "id"], [])
    done = await conn.execute(
        statement.values(
            namespace=namespace, id=invoice_id, subject=subject, credits=credits, paid_at=paid_at
        )
    )
    return bool(done.rowcount == 1)


async def forget_events(conn: AsyncConnection, before: datetime) -> int:
    """Forget some of the events that were received before an instant."""
    of = stripe_events.c
    found = await conn.execute(
        sa.select(of.namespace, of.id).where(of.received_at < before).limit(_FORGOTTEN_AT_ONCE)
    )
    old = [{"of": row[0], "old": row[1]} for row in found]
    if old:
        await conn.execute(
            sa.delete(stripe_events).where(
                of.namespace == sa.bindparam("of"), of.id == sa.bindparam("old")
            ),
            old,
        )
    return len(old)


async def erase(conn: AsyncConnection, namespace: str, subject: str) -> None:
    """Forget a subject. The ids of its events stay known, so that none is taken twice."""
    of = stripe_events.c
    await conn.execute(
        sa.update(stripe_events)
        .where(of.namespace == namespace, of.subject == subject)
        .values(subject=None)
    )
    for table in (subscriptions, stripe_invoices):
        await conn.execute(
            sa.delete(table).where(table.c.namespace == namespace, table.c.subject == subject)
        )


def _subscription(row: sa.Row[Any]) -> Subscription:
    return Subscription(
        id=row.id,
        subject=row.subject,
        state=SubscriptionState(row.state),
        changed_at=row.changed_at,
        plan=row.plan,
        fallback=row.fallback,
        failed_period=row.failed_period,
        grace_until=row.grace_until,
    )
