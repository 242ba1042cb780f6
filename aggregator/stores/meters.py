"""Meters in the relational database."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Row,
    String,
    Table,
    Text,
    UniqueConstraint,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.db import mutex
from meterline.db.engine import Database
from meterline.db.tables import UtcDateTime, metadata
from meterline.kernel.errors import ConflictError, ValidationError
from meterline.kernel.ids import is_ulid
from meterline.kernel.meters import Aggregation, Meter

meters = Table(
    "meters",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("slug", String(64), nullable=False),
    Column("name", String(256), nullable=False),
    Column("description", Text),
    Column("aggregation", String(16), nullable=False),
    Column("event_type", Text, nullable=False),
    Column("value_property", Text),
    Column("group_by", JSON, nullable=False),
    Column("event_from", UtcDateTime),
    Column("metadata", JSON, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    UniqueConstraint("namespace", "slug", name="uq_meters_namespace_slug"),
)

OnChange = Callable[[AsyncConnection, Meter], Awaitable[None]]
"""What follows from a change of a meter, in the transaction that writes it."""


class SqlMeterStore:
    """Keeps meters. A slug is unique in its namespace; a deleted meter leaves nothing behind."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> Sequence[Meter]:
        """The meters of every namespace."""
        return await self._select()

    async def list(self, namespace: str) -> Sequence[Meter]:
        """The meters of a namespace, oldest first."""
        return await self._select(meters.c.namespace == namespace)

    async def of_type(self, namespace: str, event_type: str) -> Sequence[Meter]:
        """The meters over one event type, oldest first."""
        return await self._select(
            meters.c.namespace == namespace, meters.c.event_type == event_type
        )

    async def find(self, namespace: str, id_or_slug: str) -> Meter | None:
        """The meter with that slug or id. No slug looks like an id."""
        named = meters.c.slug == id_or_slug
        if is_ulid(id_or_slug):
            named = or_(named, meters.c.id == id_or_slug.upper())
        found = await self._select(meters.c.namespace == namespace, named)
        return found[0] if found else None

    async def add(self, meter: Meter, most: int) -> None:
        """Keep a new meter; `ConflictError` when its slug is taken, at most `most` a namespace."""
        count = select(func.count()).where(meters.c.namespace == meter.namespace)
        try:
            async with self._database.transaction() as conn:
                await mutex.alone(conn, "meters", meter.namespace)
                if (await conn.execute(count)).scalar_one() >= most:
                    raise ValidationError(f"a namespace has at most {most} meters")
                await conn.execute(insert(meters).values(_values(meter)))
        except IntegrityError:
            raise ConflictError(f"a meter with the slug {meter.slug} exists already") from None

    async def replace(self, meter: Meter, also: OnChange | None = None) -> bool:
        """Write a changed meter, and what follows from that. False when it is gone."""
        change = update(meters).where(meters.c.id == meter.id).values(_values(meter))
        async with self._database.transaction() as conn:
            if (await conn.execute(change)).rowcount != 1:
                return False
            if also is not None:
                await also(conn, meter)
            return True

    async def delete(self, meter: Meter) -> bool:
        """Delete a meter. False when it is gone already."""
        async with self._database.transaction() as conn:
            return (await conn.execute(delete(meters).where(meters.c.id == meter.id))).rowcount == 1

    async def _select(self, *conditions: Any) -> Sequence[Meter]:
        query = select(meters).where(*conditions).order_by(meters.c.created_at, meters.c.id)
        async with self._database.read() as conn:
            return [_meter(row) for row in await conn.execute(query)]


def _values(meter: Meter) -> dict[str, Any]:
    return {
        "id": meter.id,
        "namespace": meter.namespace,
        "slug": meter.slug,
        "name": meter.name,
        "description": meter.description,
        "aggregation": meter.aggregation.value,
        "event_type": meter.event_type,
        "value_property": meter.value_property,
        "group_by": dict(meter.group_by),
        "event_from": meter.event_from,
        "metadata": dict(meter.metadata),
        "created_at": meter.created_at,
        "updated_at": meter.updated_at,
    }


def _meter(row: Row[Any]) -> Meter:
    return Meter(
        id=row.id,
        namespace=row.namespace,
        slug=row.slug,
        name=row.name,
        description=row.description,
        aggregation=Aggregation(row.aggregation),
        event_type=row.event_type,
        value_property=row.value_property,
        group_by=row.group_by,
        event_from=row.event_from,
        metadata=row.metadata,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )
