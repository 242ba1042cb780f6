"""Histories of balances and rates of models in the database."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.credits.rates import Rate
from entitlements.holds.book import Entry
from entitlements.holds.model import Place
from entitlements.holds.tables import accounts, entries
from meterline.db.tables import Exact, UtcDateTime, metadata, upsert

rates = sa.Table(
    "credit_rates",
    metadata,
    sa.Column("namespace", sa.String(64), primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("input_rate", Exact, nullable=False),
    sa.Column("output_rate", Exact, nullable=False),
    sa.Column("cached_rate", Exact, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

_IN_ONE_GO = 500


async def entered_until(conn: AsyncConnection, place: Place) -> int:
    """Up to when a history is known to be complete; 0 when nobody has looked yet."""
    found = await conn.scalar(sa.select(accounts.c.ledger_at).where(_at(accounts, place)))
    return int(found or 0)


async def end_of(conn: AsyncConnection, place: Place) -> tuple[int, Decimal, int]:
    """Of a history: how many entries, their sum, and up to when it is known to be complete."""
    of = accounts.c
    query = sa.select(of.entries, of.ledger, of.ledger_at).where(_at(accounts, place))
    row = (await conn.execute(query)).first()
    return (0, Decimal(0), 0) if row is None else (row[0], Decimal(row[1]), row[2])


async def known_refs(conn: AsyncConnection, place: Place, refs: Sequence[str]) -> set[str]:
    """Those of the refs that a history has."""
    known: set[str] = set()
    for start in range(0, len(refs), _IN_ONE_GO):
        part = refs[start : start + _IN_ONE_GO]
        query = sa.select(entries.c.ref).where(_at(entries, place), entries.c.ref.in_(part))
        known.update((await conn.execute(query)).scalars())
    return known


async def enter(conn: AsyncConnection, new: Sequence[Entry]) -> None:
    """Append entries."""
    rows = [
        {
            **one.place._asdict(),
            "number": one.number,
            "amount": f"{one.amount:f}",
            "balance": f"{one.balance:f}",
            "kind": one.kind,
            "at": one.at,
            "ref": one.ref,
            "reason": one.reason,
        }
        for one in new
    ]
    if rows:
        await conn.execute(sa.insert(entries), rows)


async def move(conn: AsyncConnection, place: Place, last: Entry | None, until: int) -> None:
    """Note the end of a history, whose account is locked."""
    values: dict[str, Any] = {"ledger_at": until}
    if last is not None:
        values |= {"entries": last.number, "ledger": f"{last.balance:f}"}
    await conn.execute(sa.update(accounts).where(_at(accounts, place)).values(**values))


async def listing(
    conn: AsyncConnection, place: Place, before: int | None, limit: int
) -> list[Sequence[Any]]:
    """Number, amount, balance, kind, at, ref and reason of entries, the newest first."""
    of = entries.c
    query = sa.select(of.number, of.amount, of.balance, of.kind, of.at, of.ref, of.reason)
    query = query.where(_at(entries, place))
    if before is not None:
        query = query.where(of.number < before)
    found = await conn.execute(query.order_by(of.number.desc()).limit(limit))
    return [tuple(row) for row in found]


async def put_rate(conn: AsyncConnection, namespace: str, rate: Rate, now: Any) -> None:
    """Keep the rate of a model."""
    values = {
        "namespace": namespace, "model": rate.model, "input_rate": rate.input,
        "output_rate": rate.output, "cached_rate": rate.cached, "created_at": now,
        "updated_at": now,
    }  # fmt: skip
    changed = ["input_rate", "output_rate", "cached_rate", "updated_at"]
    await conn.execute(upsert(conn, rates, ["namespace", "model"], changed).values(**values))


async def find_rate(conn: AsyncConnection, namespace: str, model: str) -> Rate | None:
    """The rate of a model."""
    query = _rates(namespace).where(rates.c.model == model)
    row = (await conn.execute(query)).first()
    return None if row is None else Rate(*row)


async def list_rates(
    conn: AsyncConnection, namespace: str, after: str | None, limit: int
) -> list[Rate]:
    """Rates by model, from the one after `after`."""
    query = _rates(namespace)
    if after is not None:
        query = query.where(rates.c.model > after)
    return [Rate(*row) for row in await conn.execute(query.order_by(rates.c.model).limit(limit))]


async def delete_rate(conn: AsyncConnection, namespace: str, model: str) -> bool:
    """Forget the rate of a model; False when there is none."""
    gone = sa.delete(rates).where(rates.c.namespace == namespace, rates.c.model == model)
    return (await conn.execute(gone)).rowcount == 1


def _rates(namespace: str) -> sa.Select[Any]:
    of = rates.c
    chosen = sa.select(of.model, of.input_rate, of.output_rate, of.cached_rate)
    return chosen.where(of.namespace == namespace)


def _at(table: sa.Table, place: Place) -> sa.ColumnElement[bool]:
    return sa.and_(
        table.c.namespace == place.namespace,
        table.c.subject == place.subject,
        table.c.feature_key == place.feature_key,
    )
