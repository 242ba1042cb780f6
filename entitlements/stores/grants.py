"""Grants and resets in the relational database. Functions run in the caller's transaction."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ForeignKey,
    Integer,
    Row,
    String,
    Table,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance import Grant, Reset
from entitlements.model import Expiration, IssuedGrant
from entitlements.paging import Page
from entitlements.stores.entitlements import entitlements, matching
from entitlements.stores.pages import page_of
from entitlements.stores.recurrences import columns_of, recurrence_of
from meterline.db.tables import Exact, UtcDateTime, metadata

grants = Table(
    "grants",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("entitlement_id", String(26), ForeignKey("entitlements.id"), nullable=False),
    Column("amount", Exact, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("effective_at", UtcDateTime, nullable=False),
    Column("expiration_duration", String(64)),
    Column("expiration_count", Integer),
    Column("expires_at", UtcDateTime),
    Column("voided_at", UtcDateTime),
    Column("min_rollover", Exact, nullable=False),
    Column("max_rollover", Exact, nullable=False),
    Column("recurrence_anchor", UtcDateTime),
    Column("recurrence_interval", String(64)),
    Column("recurrence_zone", String(64)),
    Column("issued_after_reset", Boolean, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)

resets = Table(
    "entitlement_resets",
    metadata,
    Column("entitlement_id", String(26), ForeignKey("entitlements.id"), primary_key=True),
    Column("at", UtcDateTime, primary_key=True),
    Column("retain_anchor", Boolean, nullable=False),
    Column("preserve_overage", Boolean),
    Column("created_at", UtcDateTime, nullable=False),
)

_IN_ONE_GO = 500


async def add(conn: AsyncConnection, issued: IssuedGrant) -> None:
    """Keep a new grant."""
    grant, expiration = issued.grant, issued.expiration
    await conn.execute(
        insert(grants).values(
            id=grant.id,
            namespace=issued.namespace,
            entitlement_id=issued.entitlement_id,
            amount=grant.amount,
            priority=grant.priority,
            effective_at=grant.effective_at,
            expiration_duration=expiration.duration if expiration else None,
            expiration_count=expiration.count if expiration else None,
            expires_at=grant.expires_at,
            voided_at=grant.voided_at,
            min_rollover=grant.min_rollover,
            max_rollover=grant.max_rollover,
            **columns_of("recurrence", grant.recurrence),
            issued_after_reset=issued.issued_after_reset,
            metadata=dict(issued.metadata),
            created_at=grant.created_at,
            updated_at=issued.updated_at,
        )
    )


async def find(conn: AsyncConnection, namespace: str, grant_id: str) -> IssuedGrant | None:
    """The grant with that id."""
    query = select(grants).where(grants.c.namespace == namespace, grants.c.id == grant_id.upper())
    row = (await conn.execute(query)).first()
    return _issued(row) if row else None


async def of_entitlements(
    conn: AsyncConnection, ids: Sequence[str]
) -> Mapping[str, list[IssuedGrant]]:
    """The grants of each entitlement, in the order of their creation."""
    found: defaultdict[str, list[IssuedGrant]] = defaultdict(list)
    for start in range(0, len(ids), _IN_ONE_GO):
        query = select(grants).where(grants.c.entitlement_id.in_(ids[start : start + _IN_ONE_GO]))
        for row in await conn.execute(query.order_by(grants.c.created_at, grants.c.id)):
            found[row.entitlement_id].append(_issued(row))
    return found


async def last_created(conn: AsyncConnection, entitlement_id: str) -> tuple[int, datetime | None]:
    """How many grants an entitlement has, and when the last one was made."""
    query = select(func.count(), func.max(grants.c.created_at)).where(
        grants.c.entitlement_id == entitlement_id
    )
    count, created_at = (await conn.execute(query)).one()
    return count, created_at


async def listing(
    conn: AsyncConnection,
    namespace: str,
    page: Page,
    *,
    subjects: Sequence[str] = (),
    features: Sequence[str] = (),
    include_ended: bool = False,
) -> tuple[list[IssuedGrant], int]:
    """A page of the grants of all entitlements, and how many there are on all pages."""
    joined = grants.join(entitlements, grants.c.entitlement_id == entitlements.c.id)
    conditions = [
        grants.c.namespace == namespace,
        *matching(subjects, features, include_ended=include_ended),
    ]
    rows, total = await page_of(conn, grants, page, conditions, joined)
    return [_issued(row) for row in rows], total


async def void(conn: AsyncConnection, grant_id: str, at: datetime, now: datetime) -> None:
    """Write when a grant was voided."""
    change = update(grants).where(grants.c.id == grant_id)
    await conn.execute(change.values(voided_at=at, updated_at=now))


async def add_reset(
    conn: AsyncConnection, entitlement_id: str, reset: Reset, now: datetime
) -> None:
    """Keep a reset by hand."""
    await conn.execute(
        insert(resets).values(
            entitlement_id=entitlement_id,
            at=reset.at,
            retain_anchor=reset.retain_anchor,
            preserve_overage=reset.preserve_overage,
            created_at=now,
        )
    )


async def resets_of(conn: AsyncConnection, ids: Sequence[str]) -> Mapping[str, list[Reset]]:
    """The resets by hand of each entitlement, in order."""
    found: defaultdict[str, list[Reset]] = defaultdict(list)
    for start in range(0, len(ids), _IN_ONE_GO):
        query = select(resets).where(resets.c.entitlement_id.in_(ids[start : start + _IN_ONE_GO]))
        for row in await conn.execute(query.order_by(resets.c.at)):
            reset = Reset(row.at, row.retain_anchor, row.preserve_overage)
            found[row.entitlement_id].append(reset)
    return found


def _issued(row: Row[Any]) -> IssuedGrant:
    expiration = None
    if row.expiration_duration is not None:
        expiration = Expiration(row.expiration_duration, row.expiration_count)
    return IssuedGrant(
        grant=Grant(
            id=row.id,
            amount=row.amount,
            effective_at=row.effective_at,
            created_at=row.created_at,
            priority=row.priority,
            expires_at=row.expires_at,
            voided_at=row.voided_at,
            min_rollover=row.min_rollover,
            max_rollover=row.max_rollover,
            recurrence=recurrence_of("recurrence", row),
        ),
        namespace=row.namespace,
        entitlement_id=row.entitlement_id,
        expiration=expiration,
        issued_after_reset=row.issued_after_reset,
        metadata=row.metadata,
        updated_at=row.updated_at,
    )
