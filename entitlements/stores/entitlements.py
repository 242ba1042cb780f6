"""Entitlements in the relational database. Functions run in the caller's transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    ColumnElement,
    ForeignKey,
    Integer,
    Row,
    String,
    Table,
    Text,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.model import Entitlement, EntitlementType, MeteredRules
from entitlements.paging import Page
from entitlements.stores.pages import page_of
from entitlements.stores.recurrences import columns_of, recurrence_of
from meterline.db.tables import Exact, UtcDateTime, metadata
from meterline.kernel.ids import is_ulid

entitlements = Table(
    "entitlements",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("subject", Text, nullable=False),
    Column("feature_id", String(26), ForeignKey("features.id"), nullable=False),
    Column("feature_key", String(64), nullable=False),
    Column("type", String(16), nullable=False),
    Column("usage_anchor", UtcDateTime),
    Column("usage_interval", String(64)),
    Column("usage_zone", String(64)),
    Column("measure_from", UtcDateTime),
    Column("is_soft_limit", Boolean, nullable=False),
    Column("preserve_overage_at_reset", Boolean, nullable=False),
    Column("issue_after_reset", Exact),
    Column("issue_after_reset_priority", Integer),
    Column("config", Text),
    Column("metadata", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
)

ACTIVE = entitlements.c.ended_at.is_(None)


async def add(conn: AsyncConnection, entitlement: Entitlement) -> None:
    """Keep a new entitlement; `IntegrityError` when the subject has one for that feature."""
    rules = entitlement.metered
    await conn.execute(
        insert(entitlements).values(
            id=entitlement.id,
            namespace=entitlement.namespace,
            subject=entitlement.subject,
            feature_id=entitlement.feature_id,
            feature_key=entitlement.feature_key,
            type=entitlement.type.value,
            **columns_of("usage", entitlement.usage_period),
            measure_from=rules.measure_from if rules else None,
            is_soft_limit=rules is not None and rules.is_soft_limit,
            preserve_overage_at_reset=rules is not None and rules.preserve_overage_at_reset,
            issue_after_reset=rules.issue_after_reset if rules else None,
            issue_after_reset_priority=rules.issue_after_reset_priority if rules else None,
            config=entitlement.config,
            metadata=dict(entitlement.metadata),
            created_at=entitlement.created_at,
            updated_at=entitlement.updated_at,
            ended_at=entitlement.ended_at,
        )
    )


async def find(
    conn: AsyncConnection, namespace: str, subject: str, ref: str, *, to_change: bool = False
) -> list[Entitlement]:
    """The subject's entitlements that `ref` names: an id, a feature id or a feature key.

    The newest is first. `to_change` finds those that have not ended, and the one with that id; no
    other transaction changes them before this one ends.
    """
    named = entitlements.c.feature_key == ref
    if is_ulid(ref):
        # A feature key never looks like an id.
        named = or_(entitlements.c.id == ref.upper(), entitlements.c.feature_id == ref.upper())
    query = select(entitlements).where(
        entitlements.c.namespace == namespace, entitlements.c.subject == subject, named
    )
    query = query.order_by(ACTIVE.desc(), entitlements.c.created_at.desc())
    if to_change:
        # One row is locked, so that no two transactions wait for each other's.
        query = query.where(or_(ACTIVE, entitlements.c.id == ref.upper())).with_for_update()
    return [entitlement_of(row) for row in await conn.execute(query)]


async def by_id(
    conn: AsyncConnection, namespace: str, entitlement_id: str, *, lock: bool = False
) -> Entitlement | None:
    """The entitlement with that id, ended or not."""
    query = select(entitlements).where(
        entitlements.c.namespace == namespace, entitlements.c.id == entitlement_id.upper()
    )
    if lock:
        query = query.with_for_update()
    row = (await conn.execute(query)).first()
    return entitlement_of(row) if row else None


async def active(
    conn: AsyncConnection, namespace: str, subject: str, feature_key: str
) -> Entitlement | None:
    """The entitlement of a subject and feature that has not ended."""
    query = select(entitlements).where(
        entitlements.c.namespace == namespace,
        entitlements.c.subject == subject,
        entitlements.c.feature_key == feature_key,
        ACTIVE,
    )
    row = (await conn.execute(query)).first()
    return entitlement_of(row) if row else None


async def of_subject(
    conn: AsyncConnection, namespace: str, subject: str, *, include_ended: bool = False
) -> list[Entitlement]:
    """The entitlements of a subject, oldest first."""
    query = select(entitlements).where(
        entitlements.c.namespace == namespace, entitlements.c.subject == subject
    )
    if not include_ended:
        query = query.where(ACTIVE)
    query = query.order_by(entitlements.c.created_at, entitlements.c.id)
    return [entitlement_of(row) for row in await conn.execute(query)]


async def count_active(conn: AsyncConnection, namespace: str, subject: str) -> int:
    """How many entitlements a subject has that have not ended."""
    query = select(func.count()).where(
        entitlements.c.namespace == namespace, entitlements.c.subject == subject, ACTIVE
    )
    return int((await conn.execute(query)).scalar_one())


async def listing(
    conn: AsyncConnection,
    namespace: str,
    page: Page,
    *,
    subjects: Sequence[str] = (),
    features: Sequence[str] = (),
    types: Sequence[EntitlementType] = (),
    include_ended: bool = False,
) -> tuple[list[Entitlement], int]:
    """A page of entitlements of all subjects, and how many there are on all pages."""
    conditions = [
        entitlements.c.namespace == namespace,
        *matching(subjects, features, include_ended=include_ended),
    ]
    if types:
        conditions.append(entitlements.c.type.in_([one.value for one in types]))
    rows, total = await page_of(conn, entitlements, page, conditions)
    return [entitlement_of(row) for row in rows], total


def matching(
    subjects: Sequence[str], features: Sequence[str], *, include_ended: bool
) -> list[ColumnElement[bool]]:
    """Conditions on subjects, and on features by id or key."""
    conditions: list[ColumnElement[bool]] = [] if include_ended else [ACTIVE]
    if subjects:
        conditions.append(entitlements.c.subject.in_(subjects))
    if features:
        ids = [one.upper() for one in features if is_ulid(one)]
        keys = entitlements.c.feature_key.in_(features)
        conditions.append(or_(keys, entitlements.c.feature_id.in_(ids)))
    return conditions


async def end(conn: AsyncConnection, entitlement: Entitlement, now: datetime) -> bool:
    """End an entitlement. False when it has ended already."""
    change = update(entitlements).where(entitlements.c.id == entitlement.id, ACTIVE)
    changed = await conn.execute(change.values(ended_at=now, updated_at=now))
    return changed.rowcount == 1


async def any_active(conn: AsyncConnection, feature_ids: Sequence[str]) -> set[str]:
    """Those of the features that an entitlement still uses."""
    query = select(entitlements.c.feature_id).where(entitlements.c.feature_id.in_(feature_ids))
    return set((await conn.execute(query.where(ACTIVE).distinct())).scalars())


async def active_of_feature(conn: AsyncConnection, feature_id: str) -> Sequence[str]:
    """The ids of a feature's entitlements that have not ended."""
    query = select(entitlements.c.id).where(entitlements.c.feature_id == feature_id, ACTIVE)
    return (await conn.execute(query)).scalars().all()


def entitlement_of(row: Row[Any]) -> Entitlement:
    """An entitlement from its row."""
    metered = None
    if row.type == EntitlementType.METERED:
        metered = MeteredRules(
            measure_from=row.measure_from,
            is_soft_limit=row.is_soft_limit,
            preserve_overage_at_reset=row.preserve_overage_at_reset,
            issue_after_reset=row.issue_after_reset,
            issue_after_reset_priority=row.issue_after_reset_priority,
        )
    return Entitlement(
        id=row.id,
        namespace=row.namespace,
        subject=row.subject,
        feature_id=row.feature_id,
        feature_key=row.feature_key,
        type=EntitlementType(row.type),
        usage_period=recurrence_of("usage", row),
        metered=metered,
        config=row.config,
        metadata=row.metadata,
        created_at=row.created_at,
        updated_at=row.updated_at,
        ended_at=row.ended_at,
    )
