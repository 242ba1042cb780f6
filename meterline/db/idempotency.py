"""Requests with an `Idempotency-Key`, and their answers, in the database."""

from datetime import datetime
from typing import TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.db.engine import Database
from meterline.db.tables import UtcDateTime, metadata, upsert
from meterline.kernel.idempotency import Answer, Claim, Found

requests = sa.Table(
    "idempotent_requests",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary(32), nullable=False),
    sa.Column("owner", sa.String(26), nullable=False),
    sa.Column("until", UtcDateTime, nullable=False),
    sa.Column("answer", sa.LargeBinary),
)
sa.Index("ix_idempotent_requests_until", requests.c.until)

_FORGOTTEN_AT_ONCE = 1_000
S = TypeVar("S", sa.Update, sa.Delete)
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Answer).decode


class SqlRequestStore:
    """A `RequestStore`: one row a request. What has passed its `until` counts as not there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def claim(self, claim: Claim, now: datetime) -> Found | None:
        """None when it is the claimer's to do; what is known when another one has it."""
        async with self._database.read() as conn:
            found = await _find(conn, claim.id, now)
        if found is not None:
            return found
        async with self._database.transaction() as conn:
            mine = {
                "fingerprint": claim.fingerprint,
                "owner": claim.owner,
                "until": claim.until,
                "answer": None,
            }
            fresh = upsert(conn, requests, ["id"], []).values(id=claim.id, **mine)
            if (await conn.execute(fresh)).rowcount == 1:
                return None
            over = sa.update(requests).where(requests.c.id == claim.id, requests.c.until <= now)
            if (await conn.execute(over.values(**mine))).rowcount == 1:
                return None
            return await _find(conn, claim.id, now)

    async def finish(self, claim: Claim, answer: Answer, until: datetime) -> None:
        """Keep the answer of a claim until an instant."""
        change = _of(sa.update(requests), claim)
        async with self._database.transaction() as conn:
            await conn.execute(change.values(answer=_encode(answer), until=until))

    async def abandon(self, claim: Claim) -> None:
        """Forget a claim, so that the request may be sent again."""
        async with self._database.transaction() as conn:
            await conn.execute(_of(sa.delete(requests), claim))

    async def forget(self, now: datetime) -> int:
        """Delete some of what has passed its time; answers how many."""
        old = sa.select(requests.c.id).where(requests.c.until <= now).limit(_FORGOTTEN_AT_ONCE)
        async with self._database.transaction() as conn:
            gone = await conn.execute(sa.delete(requests).where(requests.c.id.in_(old)))
            return gone.rowcount


def _of(statement: S, claim: Claim) -> S:
    return statement.where(
        requests.c.id == claim.id, requests.c.owner == claim.owner, requests.c.answer.is_(None)
    )


async def _find(conn: AsyncConnection, id: str, now: datetime) -> Found | None:
    query = sa.select(requests.c.fingerprint, requests.c.answer)
    row = (await conn.execute(query.where(requests.c.id == id, requests.c.until > now))).first()
    if row is None:
        return None
    return Found(row.fingerprint, None if row.answer is None else _decode(row.answer))
