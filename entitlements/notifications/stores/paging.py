"""Numbered pages, as OpenMeter's notifications have them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Row, Select, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Sorting:
    """Which page of which order; `by` is a column, and ids decide between equals."""

    page: int = 1
    size: int = 100
    by: str = "id"
    descending: bool = True


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some of `total` items."""

    items: Sequence[Item]
    total: int


async def page_of(
    conn: AsyncConnection, query: Select[Any], table: Table, sorting: Sorting
) -> tuple[int, Sequence[Row[Any]]]:
    """How many rows a query has, and those of one page."""
    counted = select(func.count()).select_from(query.order_by(None).subquery())
    total = int((await conn.execute(counted)).scalar_one())
    columns = [table.c[sorting.by], table.c.id]
    order = [one.desc() if sorting.descending else one.asc() for one in columns]
    query = query.order_by(*order).limit(sorting.size).offset((sorting.page - 1) * sorting.size)
    return total, (await conn.execute(query)).all()
