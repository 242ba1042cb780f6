"""A namespace's own prices in the relational database."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, Column, Row, String, Table, Text, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.db.tables import UtcDateTime, metadata
from meterline.kernel.quantity import format_number
from meterline.pricing.book import Override
from meterline.pricing.rates import Rate, Tier

prices = Table(
    "prices",
    metadata,
    Column("id", String(26), primary_key=True),
    Column("namespace", String(64), nullable=False),
    Column("model", Text, nullable=False),
    Column("provider", Text),
    Column("valid_from", UtcDateTime),
    Column("valid_until", UtcDateTime),
    Column("rates", JSON, nullable=False),
    Column("note", Text),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)


@dataclass(frozen=True, slots=True)
class OwnPrice:
    """A price, and what is kept beside it."""

    price: Override
    note: str | None
    made_at: datetime
    updated_at: datetime


async def listing(conn: AsyncConnection, namespace: str) -> list[OwnPrice]:
    """All prices of a namespace, oldest first."""
    query = select(prices).where(prices.c.namespace == namespace).order_by(prices.c.id)
    return [_price_of(row) for row in await conn.execute(query)]


async def find(conn: AsyncConnection, namespace: str, price_id: str) -> OwnPrice | None:
    """The price with that id."""
    query = select(prices).where(prices.c.namespace == namespace, prices.c.id == price_id.upper())
    row = (await conn.execute(query)).first()
    return _price_of(row) if row else None


async def count(conn: AsyncConnection, namespace: str) -> int:
    """How many prices a namespace has."""
    query = select(func.count()).where(prices.c.namespace == namespace)
    return int((await conn.execute(query)).scalar_one())


async def add(conn: AsyncConnection, namespace: str, one: OwnPrice) -> None:
    """Keep a new price."""
    await conn.execute(insert(prices).values(namespace=namespace, **_row(one)))


async def replace(conn: AsyncConnection, namespace: str, one: OwnPrice) -> bool:
    """Keep a price as it is now. False when it is gone."""
    change = update(prices).where(prices.c.namespace == namespace, prices.c.id == one.price.id)
    return (await conn.execute(change.values(**_row(one)))).rowcount == 1


async def remove(conn: AsyncConnection, namespace: str, price_id: str) -> bool:
    """Forget a price. False when there is none."""
    gone = delete(prices).where(prices.c.namespace == namespace, prices.c.id == price_id.upper())
    return (await conn.execute(gone)).rowcount == 1


def _row(one: OwnPrice) -> dict[str, Any]:
    price = one.price
    return {
        "id": price.id,
        "model": price.model,
        "provider": price.provider,
        "valid_from": price.valid_from,
        "valid_until": price.valid_until,
        "rates": {key: _rate_row(rate) for key, rate in price.rates.items()},
        "note": one.note,
        "created_at": one.made_at,
        "updated_at": one.updated_at,
    }


def _rate_row(rate: Rate) -> list[Any]:
    tiers = [[tier.above, format_number(tier.price)] for tier in rate.tiers]
    return [format_number(rate.price), rate.per, tiers]


def _price_of(row: Row[Any]) -> OwnPrice:
    price = Override(
        id=row.id,
        model=row.model,
        rates=_rates(row.rates),
        provider=row.provider,
        valid_from=row.valid_from,
        valid_until=row.valid_until,
    )
    return OwnPrice(price, row.note, row.created_at, row.updated_at)


def _rates(kept: Mapping[str, Any]) -> Mapping[str, Rate]:
    return {
        key: Rate(
            Decimal(price), per, tuple(Tier(above, Decimal(dearer)) for above, dearer in tiers)
        )
        for key, (price, per, tiers) in kept.items()
    }
