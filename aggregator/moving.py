"""Moving stored events and keys from one event store to another, each row once.

Events keep their place in the log that they were in, under a partition of their own (`MOVED`); what
series make of them is filled by the ordinary back-fill. A key gets the partition in which the
target's log will have copies of the event (its home) and the offset 0, which is before all events;
where the event was erased nobody knows its home, and the key is of the partition `MOVED` as well.

Rows go over in *chunks*, which follow from the source alone as long as that does not change. A
chunk is done when its end was written down; one that was cut short is looked for in the target, and
what is missing is added.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from aggregator.rows import LOAD_SETTINGS
from aggregator.stores.engine import Engine
from aggregator.stores.state import MOVED

Homes = Callable[[Sequence[tuple[str, str, str]]], Sequence[int]]
"""The home partitions of keys (namespace, source, id)."""

_ROWS = 50_000
_BYTES = 32 << 20
_KEYS = 1_000_000
_TABLES = ("events", "keys", "points", "totals", "faults")
_EVENT_COLUMNS = (
    "ns", "part", "off", "idx", "status", "inexact", "id", "source", "type", "subject", "time",
    "time_given", "datacontenttype", "data", "data_base64", "ext", "ingested_at", "stored_at",
)  # fmt: skip
_KEY_COLUMNS = ("h", "content", "part", "off", "idx")
_ORDER = "ns, type, subject, time, off, idx"
_SIZE = (
    "length(data) + length(data_base64) + length(ext) + length(id) + length(source)"
    " + length(subject) + 100"
)
_HASH = "reinterpretAsUInt128(sipHash128(ns, source, id))"
_CONTENT = (
    "sipHash64(type, subject, if(time_given, toUnixTimestamp64Micro(time), 0), datacontenttype,"
    " data, data_base64, ext)"
)
"""As `rows.stage_events` has them."""
_KEY_DTYPE = np.dtype(
    [("h", "V16"), ("content", "<u8"), ("part", "<u2"), ("off", "<u8"), ("idx", "<u4")]
)
_ONE_BLOCK: dict[str, str | int] = {
    "max_insert_block_size": 100_000_000,
    "min_insert_block_size_rows": 100_000_000,
    "min_insert_block_size_bytes": 16 << 30,
}


class Place(msgspec.Struct, frozen=True, array_like=True):
    """An event in the order of the table; `micros` is its time, since 1970."""

    ns: str
    type: str
    subject: str
    micros: int
    off: int
    idx: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """The events after one and up to another, which is among them."""

    after: Place | None
    through: Place
    count: int


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys whose events were at offsets in (after, through]."""

    after: int
    through: int


class _Key(msgspec.Struct, array_like=True, gc=False):
    h: str
    content: str
    ns: str
    source: str
    id: str


_keys_of = msgspec.json.Decoder(_Key)


class StoreMover:
    """Moves rows between two stores. `name` tells this move from all others."""

    def __init__(self, source: Engine, target: Engine, homes: Homes, name: str) -> None:
        self._source = source
        self._target = target
        self._homes = homes
        self._name = name

    async def next_chunk(self, after: Place | None) -> Chunk | None:
        """What is to be moved after an event; None when nothing is left."""
        where, params = _range(after, None)
        found = await self._source.query(
            "SELECT max(n), argMax((ns, type, subject, toUnixTimestamp64Micro(time), off, idx), n)"
            f" FROM (SELECT {_ORDER}, row_number() OVER w AS n, sum(size) OVER w AS total FROM"
            f" (SELECT {_ORDER}, {_SIZE} AS size FROM events WHERE {where}"
            f" ORDER BY {_ORDER} LIMIT {_ROWS})"
            f" WINDOW w AS (ORDER BY {_ORDER} ROWS UNBOUNDED PRECEDING))"
            f" WHERE n = 1 OR total <= {_BYTES}",
            params,
        )
        ((count, last),) = found
        return Chunk(after, Place(*last), count) if count else None

    async def move_keys(self, chunk: Chunk, *, again: bool) -> None:
        """The keys of a chunk's events; to be called before `move_events`.

        `again` when a try before may have stored some of them.
        """
        where, params = _range(chunk.after, chunk.through)
        raw = await self._source.fetch(
            f"SELECT toString({_HASH}), toString({_CONTENT}), ns, source, id"
            f" FROM events WHERE {where}",
            "JSONCompactEachRow",
            params,
        )
        keys = [_keys_of.decode(line) for line in raw.split(b"\n") if line]
        if again:
            there = await self._keys_there([one.h for one in keys])
            keys = [one for one in keys if (one.h, one.content) not in there]
        homes = self._homes([(one.ns, one.source, one.id) for one in keys])
        lines = [
            b'["%b","%b",%d,0,0]' % (one.h.encode(), one.content.encode(), home)
            for one, home in zip(keys, homes, strict=True)
        ]
        if lines:
            settings = self._settings("keys", _text(chunk))
            await self._target.load(
                "keys", _KEY_COLUMNS, "JSONCompactEachRow", b"\n".join(lines), settings
            )

    async def _keys_there(self, hashes: Sequence[str]) -> set[tuple[str, str]]:
        found = await self._target.query(
            "SELECT toString(h), toString(content) FROM keys"
            " WHERE off = 0 AND h IN"
            " (SELECT arrayJoin(arrayMap(x -> toUInt128(x), {hashes:Array(String)})))",
            {"hashes": list(hashes)},
        )
        return set(found)

    async def move_events(self, chunk: Chunk, *, again: bool) -> None:
        """The events of a chunk, byte for byte."""
        where, params = _range(chunk.after, chunk.through)
        columns = ", ".join(_EVENT_COLUMNS).replace(" part,", f" toUInt16({MOVED}),")
        if again:
            there = await self._target.query(
                f"SELECT off, idx FROM events WHERE part = {MOVED} AND {where}", params
            )
            where += (
                " AND (off, idx) NOT IN (SELECT p.1, p.2 FROM (SELECT arrayJoin(arrayZip("
                "{offs:Array(UInt64)}, {idxs:Array(UInt32)})) AS p))"
            )
            params |= {"offs": [off for off, _ in there], "idxs": [idx for _, idx in there]}
        raw = await self._source.fetch(
            f"SELECT {columns} FROM events WHERE {where}", "RowBinary", params
        )
        if raw:
            settings = self._settings("events", _text(chunk))
            await self._target.load("events", _EVENT_COLUMNS, "RowBinary", raw, settings)

    async def erased_ranges(self, through: int) -> Sequence[KeyRange]:
        """Where to look for keys whose events were erased; nowhere, if none was."""
        ((keys,),) = await self._source.query("SELECT count() FROM keys")
        ((events,),) = await self._source.query("SELECT count() FROM events")
        if keys == events:
            return ()
        step = max(1, through * _KEYS // keys)
        return [KeyRange(at, min(at + step, through)) for at in range(0, through, step)]

    async def move_erased(self, part: KeyRange, *, again: bool) -> int:
        """The keys of a range whose events were erased; answers how many there are."""
        inside = f"off > {part.after} AND off <= {part.through}"
        raw = await self._source.fetch(
            f"SELECT h, content, toUInt16({MOVED}), off, idx FROM keys WHERE {inside}"
            f" AND (off, idx) NOT IN (SELECT off, idx FROM events WHERE {inside})"
            " ORDER BY off, idx",
            "RowBinary",
        )
        keys = np.frombuffer(raw, dtype=_KEY_DTYPE)
        wanted = keys
        if again:
            found = await self._target.query(
                f"SELECT off, idx FROM keys WHERE part = {MOVED} AND {inside}"
            )
            there = set(found)
            places = zip(keys["off"].tolist(), keys["idx"].tolist(), strict=True)
            wanted = keys[[place not in there for place in places]]
        if len(wanted):
            settings = self._settings("erased", f"{part.after}-{part.through}")
            await self._target.load("keys", _KEY_COLUMNS, "RowBinary", wanted.tobytes(), settings)
        return len(keys)

    async def is_empty(self) -> bool:
        """Whether the target has neither events nor keys."""
        for table in ("events", "keys"):
            if await self._target.query(f"SELECT 1 FROM {table} LIMIT 1"):
                return False
        return True

    async def clear(self) -> None:
        """Throw away all that the target has."""
        for table in _TABLES:
            await self._target.execute(f"TRUNCATE TABLE {self._target.layout.change(table)}")

    def _settings(self, what: str, which: str) -> dict[str, str | int]:
        token = hashlib.sha256(f"{self._name}\n{what}\n{which}".encode()).hexdigest()
        return {**LOAD_SETTINGS, **_ONE_BLOCK, "insert_deduplication_token": f"moved-{token}"}


def _text(chunk: Chunk) -> str:
    return msgspec.json.encode([chunk.after, chunk.through]).decode()


def _range(after: Place | None, through: Place | None) -> tuple[str, dict[str, Any]]:
    """A condition on the events after one and up to another, and its parameters.

    It is written out, as the index understands no comparison of tuples.
    """
    conditions: list[str] = []
    params: dict[str, Any] = {}
    for name, place, sign, last in (("a", after, ">", ">"), ("z", through, "<", "<=")):
        if place is None:
            continue
        ns, kind, subject = (f"{{{name}_{one}:String}}" for one in ("ns", "type", "subject"))
        time = f"fromUnixTimestamp64Micro({{{name}_micros:Int64}}, 'UTC')"
        rest = f"({time}, {{{name}_off:UInt64}}, {{{name}_idx:UInt32}})"
        conditions.append(
            f"(ns {sign} {ns} OR (ns = {ns} AND type {sign} {kind})"
            f" OR (ns = {ns} AND type = {kind} AND subject {sign} {subject})"
            f" OR (ns = {ns} AND type = {kind} AND subject = {subject} AND time {sign}= {time}"
            f" AND (time, off, idx) {last} {rest}))"
        )
        params |= {f"{name}_{one}": getattr(place, one) for one in place.__struct_fields__}
    return " AND ".join(conditions) or "1", params
