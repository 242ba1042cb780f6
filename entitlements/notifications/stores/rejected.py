"""Counts of events that were accepted and could not be used, until a rule tells of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.notifications.model import EventType
from entitlements.notifications.stores.tables import rejected, rules

_REASON_LENGTH = 200
_MOST_REASONS = 50
_OTHER = "other reasons"


@dataclass(frozen=True, slots=True)
class Rejected:
    """How many events were rejected between two instants, and why, the most frequent first."""

    begin: datetime
    end: datetime
    reasons: Sequence[tuple[str, int]]


async def watching_namespaces(conn: AsyncConnection) -> set[str]:
    """The namespaces with a rule that tells of rejected events."""
    query = select(rules.c.namespace).where(
        rules.c.type == EventType.EVENTS_REJECTED.value,
        rules.c.disabled.is_(False),
        rules.c.deleted_at.is_(None),
    )
    return set((await conn.execute(query.distinct())).scalars())


async def report_rejected(
    conn: AsyncConnection, namespace: str, reasons: Mapping[str, int], now: datetime
) -> None:
    """Count events that could not be used. Call it in the transaction that sets them aside."""
    if not reasons or namespace not in await watching_namespaces(conn):
        return
    kept = select(rejected.c.reason).where(rejected.c.namespace == namespace)
    known = set((await conn.execute(kept)).scalars())
    make = postgresql.insert if conn.dialect.name == "postgresql" else sqlite.insert
    # In order, so that two sinks that count the same do not wait in a circle.
    for text, count in sorted(reasons.items()):
        reason = text[:_REASON_LENGTH]
        if reason not in known and len(known) >= _MOST_REASONS:
            reason = _OTHER
        known.add(reason)
        statement = make(rejected).values(
            namespace=namespace, reason=reason, number=count, first_at=now, last_at=now
        )
        await conn.execute(
            statement.on_conflict_do_update(
                index_elements=["namespace", "reason"],
                set_={"number": rejected.c.number + statement.excluded.number, "last_at": now},
            )
        )


async def waiting(conn: AsyncConnection, until: datetime) -> Sequence[str]:
    """Namespaces with rejections counted since `until` or longer."""
    query = select(rejected.c.namespace).where(rejected.c.first_at <= until).distinct()
    return (await conn.execute(query)).scalars().all()


async def take(conn: AsyncConnection, namespace: str) -> Rejected | None:
    """What was counted in a namespace; the count starts anew."""
    # One statement: what is counted meanwhile is for the next time.
    taken = delete(rejected).where(rejected.c.namespace == namespace).returning(rejected)
    rows = sorted(await conn.execute(taken), key=lambda row: row.number, reverse=True)
    if not rows:
        return None
    return Rejected(
        begin=min(row.first_at for row in rows),
        end=max(row.last_at for row in rows),
        reasons=[(row.reason, row.number) for row in rows],
    )
