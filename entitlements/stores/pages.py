"""A page of rows."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, FromClause, Row, Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.paging import Page


async def page_of(
    conn: AsyncConnection,
    table: Table,
    page: Page,
    conditions: Sequence[ColumnElement[bool]],
    source: FromClause | None = None,
) -> tuple[Sequence[Row[Any]], int]:
    """The rows of a page, and how many rows all pages have when that was asked for.

    `source` joins the other tables that conditions name.
    """
    source = table if source is None else source
    ordered = [table.c[page.order_by], table.c.id]
    query = select(table).select_from(source).where(*conditions)
    query = query.order_by(*([one.desc() for one in ordered] if page.descending else ordered))
    rows = (await conn.execute(query.limit(page.limit).offset(page.offset))).all()
    if page.number is None:
        return rows, len(rows)
    count = select(func.count()).select_from(source).where(*conditions)
    return rows, int((await conn.execute(count)).scalar_one())
