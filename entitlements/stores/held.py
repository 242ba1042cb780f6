"""What holds set aside of a subject's balances. Functions run in the caller's transaction."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance.exact import ROOM
from meterline.kernel.instants import to_micros

Held = tuple[Decimal, Decimal]
"""By open holds, and confirmed but not yet part of the usage."""

_HELD = sa.text(
    "SELECT a.feature_key, a.held, a.pending, h.amount"
    " FROM hold_accounts AS a LEFT JOIN holds AS h ON h.namespace = a.namespace"
    " AND h.subject = a.subject AND h.feature_key = a.feature_key"
    " AND h.state = 'open' AND h.expires_at <= :now"
    " WHERE a.namespace = :namespace AND a.subject = :subject"
)


async def held_of(
    conn: AsyncConnection, namespace: str, subject: str, now: datetime
) -> Mapping[str, Held]:
    """By feature key, at an instant; features of which nothing was ever held are left out."""
    asked = {"namespace": namespace, "subject": subject, "now": to_micros(now)}
    found: dict[str, Held] = {}
    for key, held, pending, expired in await conn.execute(_HELD, asked):
        left, waiting = found.get(key, (Decimal(held), Decimal(pending)))
        found[key] = (ROOM.subtract(left, Decimal(expired or 0)), waiting)
    return found
