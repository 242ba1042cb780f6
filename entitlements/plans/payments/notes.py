"""Notes of Stripe's events, in the relational database. Functions run in the caller's transaction.

A note stays as long as its subject: what a late event means depends on all that were before it.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Index, String, Table, Text
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.plans.payments.judge import Note
from entitlements.plans.payments.notice import Kind
from meterline.db.tables import UtcDateTime, metadata, upsert

stripe_notes = Table(
    "stripe_notes",
    metadata,
    Column("namespace", String(64), primary_key=True),
    Column("subscription", String(255), primary_key=True),
    Column("id", String(255), primary_key=True),
    Column("subject", Text, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("plan", String(128)),
    Column("fallback", String(128)),
    Column("invoice", String(255)),
    Column("begins", BigInteger),
    Column("ends", BigInteger),
    Index("ix_stripe_notes_subject", "namespace", "subject"),
)


async def add(
    conn: AsyncConnection, namespace: str, subscription: str, subject: str, note: Note
) -> None:
    """Keep the note of an event.

    It may be known: ids of events are forgotten after a time, notes are not.
    """
    values = {name: getattr(note, name) for name in Note.__slots__}
    statement = upsert(conn, stripe_notes, ["namespace", "subscription", "id"], [])
    await conn.execute(
        statement.values(
            namespace=namespace,
            subscription=subscription,
            subject=subject,
            **{**values, "kind": note.kind.value},
        )
    )


async def of_subscription(
    conn: AsyncConnection, namespace: str, subscription: str
) -> Sequence[Note]:
    """All notes of a subscription, in no order."""
    of = stripe_notes.c
    columns = [of[name] for name in Note.__slots__]
    rows = await conn.execute(
        sa.select(*columns).where(of.namespace == namespace, of.subscription == subscription)
    )
    return [Note(**{**row._mapping, "kind": Kind(row.kind)}) for row in rows]


async def erase(conn: AsyncConnection, namespace: str, subject: str) -> None:
    """Forget a subject."""
    of = stripe_notes.c
    await conn.execute(
        sa.delete(stripe_notes).where(of.namespace == namespace, of.subject == subject)
    )
