"""Logs of rates in the relational database, as steps of a transaction."""

from collections.abc import Collection, Mapping, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.plans.rates import RateLog
from entitlements.plans.stores.tables import rate_chunks, rates
from entitlements.plans.tokens import TokenLog
from entitlements.plans.windows import RequestLog
from meterline.db.steps import Ask, Each, Steps, Texts, Write, insert, update

Key = tuple[str, str]
"""Namespace and subject."""
ChunkKey = tuple[str, str, int]

_COLUMNS = "SELECT r.namespace, r.subject, r.state FROM"
_LOAD: Texts = {
    "sqlite": f"{_COLUMNS} json_each(?) AS wanted CROSS JOIN plan_rates AS r"
    " ON r.namespace = json_extract(wanted.value, '$[0]')"
    " AND r.subject = json_extract(wanted.value, '$[1]')",
    "postgresql": f"{_COLUMNS} unnest($1::text[], $2::text[]) AS wanted (namespace, subject)"
    " JOIN plan_rates AS r USING (namespace, subject)",
}
_LOCK: Texts = {
    "sqlite": _LOAD["sqlite"],
    "postgresql": f"{_LOAD['postgresql']}"
    ' ORDER BY r.namespace COLLATE "C", r.subject COLLATE "C" FOR UPDATE OF r',
}
_KEY = {"namespace": "text", "subject": "text"}
_MAKE = insert(
    "plan_rates", {**_KEY, "state": "bytea"}, "ON CONFLICT (namespace, subject) DO NOTHING"
)
_SAVE = update("plan_rates", {"state": "bytea"}, _KEY)
_CHUNK = "SELECT r.namespace, r.subject, r.chunk, r.entries FROM"
_LOAD_CHUNKS: Texts = {
    "sqlite": f"{_CHUNK} json_each(?) AS wanted CROSS JOIN plan_rate_chunks AS r"
    " ON r.namespace = json_extract(wanted.value, '$[0]')"
    " AND r.subject = json_extract(wanted.value, '$[1]')"
    " AND r.chunk = CAST(json_extract(wanted.value, '$[2]') AS INTEGER)",
    "postgresql": f"{_CHUNK} unnest($1::text[], $2::text[], $3::text[])"
    " AS wanted (namespace, subject, chunk) JOIN plan_rate_chunks AS r"
    " ON r.namespace = wanted.namespace AND r.subject = wanted.subject"
    " AND r.chunk = wanted.chunk::bigint",
}
_ADD = insert("plan_rate_chunks", {**_KEY, "chunk": "bigint", "entries": "bytea"})
_FORGET: Texts = {
    "sqlite": "DELETE FROM plan_rate_chunks WHERE namespace = ? AND subject = ? AND chunk < ?",
    "postgresql": "DELETE FROM plan_rate_chunks AS r"
    " USING unnest($1::text[], $2::text[], $3::bigint[]) AS w (namespace, subject, below)"
    " WHERE r.namespace = w.namespace AND r.subject = w.subject AND r.chunk < w.below",
}


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


def load(keys: Sequence[Key], *, lock: bool) -> Steps[dict[Key, bytes]]:
    """The logs that there are; with `lock`, nobody else changes them in this transaction.

    Locks are taken in the order of the bytes of keys, whatever the database sorts by.
    """
    rows = yield Ask(_LOCK if lock else _LOAD, keys=keys)
    return {(row[0], row[1]): row[2] for row in rows}


def make(states: Mapping[Key, bytes]) -> Steps[None]:
    """Keep logs of subjects that have none; those that have one keep it."""
    yield Write([Each(_MAKE, [(*key, state) for key, state in states.items()])])


def save(states: Mapping[Key, bytes]) -> Steps[None]:
    """Keep logs as they are now."""
    yield Write([Each(_SAVE, [(state, *key) for key, state in states.items()])])


def load_chunks(keys: Collection[ChunkKey]) -> Steps[dict[ChunkKey, Sequence[int]]]:
    """Full chunks."""
    rows = yield Ask(_LOAD_CHUNKS, keys=[(key[0], key[1], str(key[2])) for key in keys])
    return {(row[0], row[1], row[2]): _ENTRIES.decode(row[3]) for row in rows}


def add_chunks(chunks: Mapping[ChunkKey, Sequence[int]]) -> Steps[None]:
    """Keep new full chunks."""
    yield Write([Each(_ADD, [(*key, _ENCODER.encode(list(one))) for key, one in chunks.items()])])


def forget_chunks(below: Mapping[Key, int]) -> Steps[None]:
    """Drop the chunks of each subject whose numbers are lower."""
    yield Write([Each(_FORGET, [(*key, number) for key, number in below.items()])])


async def erase(conn: AsyncConnection, namespace: str, subject: str) -> None:
    """Forget a subject."""
    for table in (rates, rate_chunks):
        await conn.execute(
            sa.delete(table).where(table.c.namespace == namespace, table.c.subject == subject)
        )
