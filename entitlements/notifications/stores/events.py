"""Reading events with their deliveries."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, Select, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.notifications.model import (
    Attempt,
    Delivery,
    DeliveryState,
    Event,
    EventType,
)
from entitlements.notifications.stores import rules
from entitlements.notifications.stores.paging import Page, Sorting, page_of
from entitlements.notifications.stores.tables import attempts, deliveries, events

_SHOWN_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events; what is empty does not limit. `features` and `subjects` are ids or keys."""

    begin: datetime | None = None
    end: datetime | None = None
    features: Sequence[str] = ()
    subjects: Sequence[str] = ()
    rules: Sequence[str] = ()
    channels: Sequence[str] = ()


async def get(conn: AsyncConnection, namespace: str, event_id: str) -> Event | None:
    """The event with that id."""
    query = select(events).where(events.c.namespace == namespace, events.c.id == event_id.upper())
    found = await _read(conn, (await conn.execute(query)).all())
    return found[0] if found else None


async def listed(
    conn: AsyncConnection, namespace: str, wanted: EventFilter, sorting: Sorting
) -> Page[Event]:
    """A page of events."""
    query = _narrowed(select(events).where(events.c.namespace == namespace), wanted)
    total, rows = await page_of(conn, query, events, sorting)
    return Page(await _read(conn, rows), total)


def _narrowed(query: Select[Any], wanted: EventFilter) -> Select[Any]:
    if wanted.begin is not None:
        query = query.where(events.c.created_at >= wanted.begin)
    if wanted.end is not None:
        query = query.where(events.c.created_at <= wanted.end)
    if wanted.features:
        ids = [one.upper() for one in wanted.features]
        keys = list(wanted.features)
        query = query.where(or_(events.c.feature_id.in_(ids), events.c.feature_key.in_(keys)))
    if wanted.subjects:
        query = query.where(events.c.subject.in_(list(wanted.subjects)))
    if wanted.rules:
        query = query.where(events.c.rule_id.in_([one.upper() for one in wanted.rules]))
    if wanted.channels:
        ids = [one.upper() for one in wanted.channels]
        sent = select(deliveries.c.event_id).where(deliveries.c.channel_id.in_(ids))
        query = query.where(events.c.id.in_(sent))
    return query


async def _read(conn: AsyncConnection, rows: Sequence[Row[Any]]) -> list[Event]:
    if not rows:
        return []
    found = await rules.by_ids(conn, list({row.rule_id for row in rows}))
    sent = await _deliveries(conn, [row.id for row in rows])
    return [
        Event(
            id=row.id,
            namespace=row.namespace,
            type=EventType(row.type),
            rule=found[row.rule_id],
            created_at=row.created_at,
            payload=row.payload,
            annotations=row.annotations,
            deliveries=sent.get(row.id, []),
        )
        for row in rows
    ]


async def _deliveries(conn: AsyncConnection, event_ids: Sequence[str]) -> dict[str, list[Delivery]]:
    query = (
        select(deliveries)
        .where(deliveries.c.event_id.in_(event_ids))
        .order_by(deliveries.c.event_id, deliveries.c.id)
    )
    rows = (await conn.execute(query)).all()
    made = await _attempts(conn, [row.id for row in rows])
    found: dict[str, list[Delivery]] = {}
    for row in rows:
        found.setdefault(row.event_id, []).append(
            Delivery(
                id=row.id,
                event_id=row.event_id,
                channel_id=row.channel_id,
                state=DeliveryState(row.state),
                reason=row.reason,
                updated_at=row.updated_at,
                next_attempt_at=row.next_attempt_at,
                attempts=made.get(row.id, [])[:_SHOWN_ATTEMPTS],
            )
        )
    return found


async def _attempts(conn: AsyncConnection, ids: Sequence[str]) -> dict[str, list[Attempt]]:
    """Newest first."""
    query = (
        select(attempts)
        .where(attempts.c.delivery_id.in_(ids))
        .order_by(attempts.c.at.desc(), attempts.c.id.desc())
    )
    found: dict[str, list[Attempt]] = {}
    for row in await conn.execute(query):
        found.setdefault(row.delivery_id, []).append(
            Attempt(
                row.at, DeliveryState(row.state), row.status, row.body, row.duration_ms, row.url
            )
        )
    return found
