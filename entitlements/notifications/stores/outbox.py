"""Events, their deliveries and attempts in the relational database.

An event and its deliveries are written in one transaction. A delivery is claimed by moving its
next attempt ahead by a lease: a process that dies while it sends leaves a delivery that is tried
again when the lease is over, with the same id, by which the receiver knows it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.notifications.model import (
    Attempt,
    Channel,
    DeliveryState,
    NewEvent,
    Rule,
)
from entitlements.notifications.payload import payload
from entitlements.notifications.schedule import Verdict
from entitlements.notifications.stores import channels as channel_store
from entitlements.notifications.stores.tables import attempts, channels, deliveries, events
from meterline.kernel.ids import new_ulid

_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed delivery, with all that sending it takes. `tried` counts this attempt."""

    id: str
    claim: str
    event_id: str
    payload: str
    tried: int
    channel: Channel


async def add(conn: AsyncConnection, rule: Rule, event: NewEvent, now: datetime) -> str:
    """Write an event and a delivery to each channel of its rule; answers the event's id."""
    event_id = new_ulid(now)
    await conn.execute(
        insert(events).values(
            id=event_id,
            namespace=rule.namespace,
            type=event.type.value,
            rule_id=rule.id,
            subject=event.subject,
            feature_id=event.feature.id if event.feature else None,
            feature_key=event.feature.key if event.feature else None,
            payload=payload(event_id, event.type, event.at, event.data),
            annotations=dict(event.annotations),
            created_at=now,
        )
    )
    live = await channel_store.by_ids(conn, rule.namespace, rule.spec.channels)
    rows = [
        _new_delivery(event_id, live[channel_id], now)
        for channel_id in rule.spec.channels
        if channel_id in live
    ]
    if rows:
        await conn.execute(insert(deliveries), rows)
    return event_id


def _new_delivery(event_id: str, channel: Channel, now: datetime) -> dict[str, Any]:
    state = DeliveryState.FAILED if channel.disabled else DeliveryState.PENDING
    return {
        "id": new_ulid(now),
        "event_id": event_id,
        "channel_id": channel.id,
        "state": state.value,
        "reason": "the channel is disabled" if channel.disabled else "",
        "tried": 0,
        "claim": None,
        "next_attempt_at": None if channel.disabled else now,
        "updated_at": now,
    }


async def resend(
    conn: AsyncConnection, event_id: str, to: Sequence[Channel], now: datetime
) -> None:
    """Send an event once more, with its whole schedule; also to channels that it never went to."""
    # So that two who do so at once make one delivery.
    await conn.execute(select(events.c.id).where(events.c.id == event_id).with_for_update())
    for channel in to:
        again = (
            update(deliveries)
            .where(deliveries.c.event_id == event_id, deliveries.c.channel_id == channel.id)
            .values(
                state=DeliveryState.RESENDING.value,
                reason="",
                tried=0,
                claim=None,
                next_attempt_at=now,
                updated_at=now,
            )
        )
        if (await conn.execute(again)).rowcount == 0:
            row = _new_delivery(event_id, channel, now)
            row["state"] = DeliveryState.RESENDING.value
            await conn.execute(insert(deliveries).values(row))


async def due_channels(
    conn: AsyncConnection, now: datetime, full: Collection[str], limit: int
) -> Sequence[str]:
    """Ids of channels to which something is due, the longest waiting first.

    Not those in `full`, nor those that asked for a pause.
    """
    query = (
        select(deliveries.c.channel_id)
        .join(channels, channels.c.id == deliveries.c.channel_id)
        .where(
            deliveries.c.next_attempt_at <= now,
            deliveries.c.channel_id.not_in(list(full)),
            or_(channels.c.paused_until.is_(None), channels.c.paused_until <= now),
        )
        .group_by(deliveries.c.channel_id)
        .order_by(func.min(deliveries.c.next_attempt_at))
        .limit(limit)
    )
    return (await conn.execute(query)).scalars().all()


async def claim(
    conn: AsyncConnection, channel_id: str, now: datetime, limit: int, lease: timedelta
) -> Sequence[Due]:
    """Take up to `limit` due deliveries to the channel `channel_id`."""
    waiting = and_(deliveries.c.channel_id == channel_id, deliveries.c.next_attempt_at <= now)
    ids = select(deliveries.c.id).where(waiting).order_by(deliveries.c.next_attempt_at).limit(limit)
    chosen = list((await conn.execute(ids.with_for_update(skip_locked=True))).scalars())
    if not chosen:
        return []
    token = new_ulid(now)
    result = await conn.execute(
        update(deliveries)
        .where(deliveries.c.id.in_(chosen), waiting)
        .values(claim=token, next_attempt_at=now + lease, tried=deliveries.c.tried + 1)
        .returning(deliveries.c.id, deliveries.c.event_id, deliveries.c.tried)
    )
    claimed = result.all()
    if not claimed:
        return []
    query = select(events.c.id, events.c.namespace, events.c.payload).where(
        events.c.id.in_([row.event_id for row in claimed])
    )
    found = {row.id: row for row in await conn.execute(query)}
    namespace = next(iter(found.values())).namespace
    channel = (await channel_store.by_ids(conn, namespace, [channel_id])).get(channel_id)
    if channel is None or channel.disabled:
        await channel_store.give_up(conn, channel_id, "the channel is disabled", now)
        return []
    return [
        Due(row.id, token, row.event_id, found[row.event_id].payload, row.tried, channel)
        for row in claimed
    ]


async def record(
    conn: AsyncConnection, due: Due, attempt: Attempt, verdict: Verdict, now: datetime
) -> bool:
    """Write what came of an attempt. False when the claim had lapsed, and others have gone on."""
    result = await conn.execute(
        update(deliveries)
        .where(deliveries.c.id == due.id, deliveries.c.claim == due.claim)
        .values(
            state=verdict.state.value,
            reason=verdict.reason,
            claim=None,
            next_attempt_at=verdict.next_attempt_at,
            updated_at=now,
        )
    )
    await conn.execute(
        insert(attempts).values(
            id=new_ulid(now),
            delivery_id=due.id,
            at=attempt.at,
            state=attempt.state.value,
            status=attempt.status,
            body=attempt.body,
            duration_ms=attempt.duration_ms,
            url=attempt.url,
        )
    )
    return result.rowcount == 1


async def forget(conn: AsyncConnection, before: datetime) -> int:
    """Delete some events from before an instant that are on their way nowhere; answers how many."""
    waiting = exists().where(
        deliveries.c.event_id == events.c.id, deliveries.c.next_attempt_at.is_not(None)
    )
    old = select(events.c.id).where(events.c.created_at < before, ~waiting).limit(_AT_ONCE)
    old = old.with_for_update(skip_locked=True)
    ids = list((await conn.execute(old)).scalars())
    if ids:
        of_events = select(deliveries.c.id).where(deliveries.c.event_id.in_(ids))
        await conn.execute(delete(attempts).where(attempts.c.delivery_id.in_(of_events)))
        await conn.execute(delete(deliveries).where(deliveries.c.event_id.in_(ids)))
        await conn.execute(delete(events).where(events.c.id.in_(ids)))
    return len(ids)
