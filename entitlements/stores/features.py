"""Features in the relational database. Functions run in the caller's transaction."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    Row,
    String,
    Table,
    and_,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.model import Feature
from entitlements.paging import Page
from entitlements.stores.pages import page_of
from meterline.db.tables import UtcDateTime, metadata
from meterline.kernel.ids import is_ulid

features = Table(
    "features",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("name", String(256), nullable=False),
    Column("meter_slug", String(64)),
    Column("filters", JSON, nullable=False),
    Column("metadata", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("archived_at", UtcDateTime),
)

_ACTIVE = features.c.archived_at.is_(None)


async def add(conn: AsyncConnection, feature: Feature) -> None:
    """Keep a new feature; `IntegrityError` when its key is taken."""
    await conn.execute(
        insert(features).values(
            id=feature.id,
            namespace=feature.namespace,
            key=feature.key,
            name=feature.name,
            meter_slug=feature.meter_slug,
            filters={key: list(texts) for key, texts in feature.filters.items()},
            metadata=dict(feature.metadata),
            created_at=feature.created_at,
            updated_at=feature.updated_at,
            archived_at=feature.archived_at,
        )
    )


async def find(conn: AsyncConnection, namespace: str, id_or_key: str) -> Feature | None:
    """The feature with that id, archived or not, or the one with that key that is not."""
    named: ColumnElement[bool] = and_(features.c.key == id_or_key, _ACTIVE)
    if is_ulid(id_or_key):
        # A key never looks like an id.
        named = features.c.id == id_or_key.upper()
    query = select(features).where(features.c.namespace == namespace, named)
    row = (await conn.execute(query)).first()
    return feature_of(row) if row else None


async def by_ids(conn: AsyncConnection, ids: Sequence[str]) -> dict[str, Feature]:
    """The features with these ids."""
    rows = await conn.execute(select(features).where(features.c.id.in_(ids)))
    return {row.id: feature_of(row) for row in rows}


async def count_active(conn: AsyncConnection, namespace: str) -> int:
    """How many features a namespace has that are not archived."""
    query = select(func.count()).where(features.c.namespace == namespace, _ACTIVE)
    return int((await conn.execute(query)).scalar_one())


async def listing(
    conn: AsyncConnection,
    namespace: str,
    page: Page,
    *,
    meter_slugs: Sequence[str] = (),
    include_archived: bool = False,
) -> tuple[list[Feature], int]:
    """A page of features, and how many there are on all pages."""
    conditions: list[ColumnElement[bool]] = [features.c.namespace == namespace]
    if meter_slugs:
        conditions.append(features.c.meter_slug.in_(meter_slugs))
    if not include_archived:
        conditions.append(_ACTIVE)
    rows, total = await page_of(conn, features, page, conditions)
    return [feature_of(row) for row in rows], total


async def archive(conn: AsyncConnection, feature: Feature, now: datetime) -> bool:
    """Archive a feature. False when it is archived already."""
    change = update(features).where(features.c.id == feature.id, _ACTIVE)
    changed = await conn.execute(change.values(archived_at=now, updated_at=now))
    return changed.rowcount == 1


async def using_meter(conn: AsyncConnection, namespace: str, meter_slug: str) -> list[Feature]:
    """Every feature over a meter, archived ones included."""
    query = select(features).where(
        features.c.namespace == namespace, features.c.meter_slug == meter_slug
    )
    return [feature_of(row) for row in await conn.execute(query)]


def feature_of(row: Row[Any]) -> Feature:
    """A feature from its row."""
    return Feature(
        id=row.id,
        namespace=row.namespace,
        key=row.key,
        name=row.name,
        meter_slug=row.meter_slug,
        filters={key: tuple(texts) for key, texts in row.filters.items()},
        metadata=row.metadata,
        created_at=row.created_at,
        updated_at=row.updated_at,
        archived_at=row.archived_at,
    )
