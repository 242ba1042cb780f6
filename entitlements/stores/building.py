"""How live rows come about: built beside the sinks, which never stand still.

First the row follows its series, in a transaction that holds the sink's positions; each later
step of a sink adds its usage to it. Then what came before those positions is calculated, for as
long as that takes. Last, that is added, and the row answers. Whatever else changes the balance
meanwhile changes the row's version, and the calculation is thrown away.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance.exact import total
from entitlements.stores.entitlements import entitlements
from entitlements.stores.live import (
    EMPTY,
    LiveRow,
    LiveState,
    Tracking,
    cold_values,
    live_entitlements,
    read_due,
    write_due,
    write_state,
)
from meterline.db.tables import upsert
from meterline.kernel.instants import to_micros
from meterline.kernel.periods import NEVER


async def abandon(conn: AsyncConnection, entitlement_id: str, version: int) -> None:
    """Throw the row away if it is still of this version."""
    table = live_entitlements
    await conn.execute(
        sa.update(table)
        .where(table.c.entitlement_id == entitlement_id, table.c.version == version)
        .values(**cold_values(table.c.version + 1))
    )


async def save(
    conn: AsyncConnection, namespace: str, subject: str, row: LiveRow, version: int
) -> bool:
    """Keep a row that follows no series. False when the version is not that any more."""
    return await _write(
        conn,
        row.entitlement_id,
        version,
        {
            **EMPTY,
            "namespace": namespace,
            "subject": subject,
            "feature_key": row.state.feature_key,
            "valid": True,
            "series": None,
            "state": write_state(row.state),
            "building_since": None,
            "until": until_of(row.state),
        },
    )


async def begin(
    conn: AsyncConnection,
    whose: tuple[str, str, str, str],
    tracking: Tracking,
    version: int,
    now: datetime,
) -> bool:
    """Have a row follow its series from here on: `whose` is entitlement, namespace, subject, key.

    The sink's positions must be held in this transaction. Its version is then one more than
    `version`; False, and nothing is done, when it is not `version` any more.
    """
    entitlement_id, namespace, subject, feature_key = whose
    return await _write(
        conn,
        entitlement_id,
        version,
        {
            **EMPTY,
            "namespace": namespace,
            "subject": subject,
            "feature_key": feature_key,
            "valid": False,
            "series": tracking.series,
            "counts": tracking.counts,
            "filters": tracking.filters,
            "since": to_micros(tracking.since),
            "building_since": to_micros(now),
            "until": None,
        },
    )


async def _write(
    conn: AsyncConnection, entitlement_id: str, version: int, values: Mapping[str, Any]
) -> bool:
    table = live_entitlements
    values = {**values, "version": version + 1}
    if version == 0:
        statement = upsert(conn, table, ["entitlement_id"], [])
        done = await conn.execute(statement.values(entitlement_id=entitlement_id, **values))
    else:
        done = await conn.execute(
            sa.update(table)
            .where(table.c.entitlement_id == entitlement_id, table.c.version == version)
            .values(**values)
        )
    return done.rowcount == 1


async def finish(conn: AsyncConnection, row: LiveRow, version: int) -> LiveRow | None:
    """Add what was before a row began to follow its series to what came since; it answers now.

    None when the row was thrown away meanwhile.
    """
    table = live_entitlements
    mine = (table.c.entitlement_id == row.entitlement_id, table.c.version == version)
    found = (
        await conn.execute(
            sa.select(table.c.usage, table.c.due)
            .where(*mine, table.c.building_since.is_not(None))
            .with_for_update()
        )
    ).first()
    if found is None:
        return None
    whole = replace(
        row,
        usage=total([row.usage, Decimal(found.usage)]),
        due=(*row.due, *read_due(found.due)),
    )
    await conn.execute(
        sa.update(table)
        .where(*mine)
        .values(
            valid=True,
            usage=str(whole.usage),
            due=write_due(whole.due),
            state=write_state(whole.state),
            building_since=None,
            until=until_of(whole.state),
        )
    )
    return whole


def until_of(state: LiveState) -> int:
    """When a row's answer ends, in microseconds since 1970."""
    ends = [state.end or NEVER]
    if state.standing is not None:
        ends.append(state.standing.until)
    return to_micros(min(ends))


@dataclass(frozen=True, slots=True)
class Cold:
    """An entitlement whose row does not answer, and the row's version."""

    entitlement_id: str
    namespace: str
    subject: str
    feature_key: str
    version: int


def _of_entitlements() -> sa.Select[Any]:
    of, table = entitlements.c, live_entitlements
    return (
        sa.select(of.id, of.namespace, of.subject, of.feature_key, table.c.version)
        .join(table, table.c.entitlement_id == of.id)
        .where(of.ended_at.is_(None))
    )


async def cold(
    conn: AsyncConnection, after: str, limit: int, abandoned_before: datetime
) -> list[Cold]:
    """Entitlements in force whose rows do not hold, by id, those after `after`.

    Rows that are being built are left out, but for those begun before `abandoned_before`.
    """
    table = live_entitlements
    since = table.c.building_since
    found = await conn.execute(
        _of_entitlements()
        .where(~table.c.valid, table.c.entitlement_id > after)
        .where(sa.or_(since.is_(None), since < to_micros(abandoned_before)))
        .order_by(table.c.entitlement_id)
        .limit(limit)
    )
    return [Cold(*row) for row in found]


async def outlived(conn: AsyncConnection, now: datetime, limit: int) -> list[Cold]:
    """Entitlements in force whose rows' answers have ended, and that were used; oldest first."""
    table = live_entitlements
    found = await conn.execute(
        _of_entitlements()
        .where(table.c.valid, table.c.until <= to_micros(now), table.c.usage != "0")
        .order_by(table.c.until)
        .limit(limit)
    )
    return [Cold(*row) for row in found]
