"""Logs of rates in the relational database. Functions run in the caller's transaction."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.plans.rates import RateLog
from entitlements.plans.stores.tables import rate_chunks, rates
from entitlements.plans.tokens import TokenLog
from entitlements.plans.windows import RequestLog
from meterline.db.tables import upsert

Key = tuple[str, str]
"""Namespace and subject."""
ChunkKey = tuple[str, str, int]

_IN_ONE_GO = 250


class State(msgspec.Struct, array_like=True):
    """A log as it is kept. `born` tells apart the logs that a subject has had."""

    born: int
    count: int
    last: int
    base: int
    marks: tuple[int, int, int]
    head: list[int]
    recorded: list[tuple[int, int]]
    in_flight: list[tuple[str, int, int]]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(State)
_ENTRIES = msgspec.msgpack.Decoder(list[int])


def log_of(state: bytes) -> tuple[int, RateLog]:
    """When a log was begun, and the log."""
    kept = _DECODER.decode(state)
    requests = RequestLog(kept.count, kept.head, kept.marks, base=kept.base, last=kept.last)
    return kept.born, RateLog(requests, TokenLog(kept.recorded, kept.in_flight))


def state_of(born: int, log: RateLog) -> bytes:
    """A log as bytes."""
    requests, tokens = log.requests, log.tokens
    return _ENCODER.encode(
        State(
            born,
            requests.count,
            requests.last,
            requests.base,
            requests.marks,
            requests.head,
            tokens.recorded,
            tokens.in_flight,
        )
    )


async def load(conn: AsyncConnection, keys: Sequence[Key], *, lock: bool) -> dict[Key, bytes]:
    """The logs that there are; with `lock`, nobody else changes them in this transaction.

    Locks are taken in the order of `keys`, which must be sorted by the bytes of their UTF-8.
    """
    found: dict[Key, bytes] = {}
    for part in _parts(keys):
        columns = sa.tuple_(rates.c.namespace, rates.c.subject)
        query = sa.select(rates.c.namespace, rates.c.subject, rates.c.state)
        query = query.where(columns.in_(part))
        if lock:
            query = query.with_for_update()
            if conn.dialect.name == "postgresql":
                query = query.order_by(rates.c.namespace.collate("C"), rates.c.subject.collate("C"))
        found.update({(row[0], row[1]): row[2] for row in await conn.execute(query)})
    return found


async def make(conn: AsyncConnection, states: Mapping[Key, bytes]) -> None:
    """Keep logs of subjects that have none; those that have one keep it."""
    rows = [
        {"namespace": key[0], "subject": key[1], "state": state} for key, state in states.items()
    ]
    if rows:
        await conn.execute(upsert(conn, rates, ["namespace", "subject"], []), rows)


_SAVE = (
    sa.update(rates)
    .where(rates.c.namespace == sa.bindparam("of"), rates.c.subject == sa.bindparam("who"))
    .values(state=sa.bindparam("new"))
)


async def save(conn: AsyncConnection, states: Mapping[Key, bytes]) -> None:
    """Keep logs as they are now."""
    if states:
        await conn.execute(
            _SAVE, [{"of": k[0], "who": k[1], "new": state} for k, state in states.items()]
        )


async def load_chunks(
    conn: AsyncConnection, keys: Collection[ChunkKey]
) -> dict[ChunkKey, Sequence[int]]:
    """Full chunks."""
    found: dict[ChunkKey, Sequence[int]] = {}
    of = rate_chunks.c
    for part in _parts(list(keys)):
        query = sa.select(of.namespace, of.subject, of.chunk, of.entries)
        query = query.where(sa.tuple_(of.namespace, of.subject, of.chunk).in_(part))
        for row in await conn.execute(query):
            found[row[0], row[1], row[2]] = _ENTRIES.decode(row[3])
    return found


async def add_chunks(conn: AsyncConnection, chunks: Mapping[ChunkKey, Sequence[int]]) -> None:
    """Keep new full chunks."""
    rows = [
        {"namespace": k[0], "subject": k[1], "chunk": k[2], "entries": _ENCODER.encode(list(v))}
        for k, v in chunks.items()
    ]
    if rows:
        await conn.execute(sa.insert(rate_chunks), rows)


async def forget_chunks(conn: AsyncConnection, below: Mapping[Key, int]) -> None:
    """Drop the chunks of each subject whose numbers are lower."""
    of = rate_chunks.c
    statement = sa.delete(rate_chunks).where(
        of.namespace == sa.bindparam("of"),
        of.subject == sa.bindparam("who"),
        of.chunk < sa.bindparam("below"),
    )
    if below:
        await conn.execute(
            statement, [{"of": k[0], "who": k[1], "below": n} for k, n in below.items()]
        )


async def erase(conn: AsyncConnection, namespace: str, subject: str) -> None:
    """Forget a subject."""
    for table in (rates, rate_chunks):
        await conn.execute(
            sa.delete(table).where(table.c.namespace == namespace, table.c.subject == subject)
        )


def _parts(keys: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (keys[start : start + _IN_ONE_GO] for start in range(0, len(keys), _IN_ONE_GO))
