"""From records to staged, judged rows: what the sink does before it touches a table."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import msgspec
import numpy as np

from aggregator import rows
from aggregator.cutting import between, singles
from aggregator.dedupe import KEY_DTYPE, Keys, SeenKeys, Verdict, judge, repeated
from aggregator.exact import by_type, read_points
from aggregator.rows import CONFLICT, DUPLICATE
from aggregator.scratch import (
    FIND_SCRATCH,
    LANES,
    POINT_COLUMNS,
    RECORD_COLUMNS,
    Scratch,
    encoded,
)
from aggregator.series import Series
from aggregator.stores.engine import Engine, UnreadableError
from meterline.eventlog.port import Record
from meterline.kernel.usage import Usage

_WORTH_LANES_BYTES = 1 << 20
"""With fewer bytes of events, one statement is done sooner than two side by side."""
_STORED_DTYPE = np.dtype([("low", "<u8"), ("high", "<u8"), ("content", "<u8")])


class ScratchLostError(Exception):
    """The scratch tables do not hold what was put into them: the engine was started anew."""


@dataclass(frozen=True, slots=True)
class Staged:
    """What the staging tables hold of a plan: every key, and who is not counted."""

    keys: Keys
    duplicates: int
    conflicts: int

    @property
    def judged(self) -> bool:
        """Whether the verdicts table has rows to heed."""
        return self.duplicates + self.conflicts > 0

    @property
    def stored(self) -> int:
        """Events that the plan adds to the store, conflicts included."""
        return len(self.keys) - self.duplicates


class Staging:
    """The scratch tables of one partition's worker."""

    def __init__(self, engine: Engine, part: int, seen: SeenKeys) -> None:
        self._engine = engine
        self._part = part
        self.seen = seen
        self.scratch = Scratch(part, 0)
        self._lanes = LANES

    async def create(self, epoch: int) -> None:
        """Make the tables, empty, and drop those of the workers before."""
        self.scratch = Scratch(self._part, epoch)
        names = [row[0] for row in await self._engine.query(FIND_SCRATCH)]
        for name in self.scratch.older(names):
            await self._engine.execute(f"DROP TABLE IF EXISTS {name} SYNC")
        for statement in self.scratch.ddl():
            await self._engine.execute(statement)

    async def drop(self) -> None:
        """Remove the tables: the worker is done."""
        for name in self.scratch.names:
            await self._engine.execute(f"DROP TABLE IF EXISTS {name} SYNC")

    async def load(self, records: Sequence[Record], first: int, last: int) -> None:
        """Fill the staging table with the events of `records` at offsets `first` to `last`.

        Nothing else is in it then. Raises `UnreadableError` when the engine cannot read them.
        """
        for table in self.scratch.names:
            await self._engine.execute(f"TRUNCATE TABLE {table}")
        self._lanes = _lanes_for(records)
        if not records:
            return
        await all_done(
            *(
                self._load(lane, chosen, first, last)
                for lane, chosen in enumerate(_shares(records, self._lanes))
                if chosen
            )
        )

    async def _load(self, lane: int, records: Sequence[Record], first: int, last: int) -> None:
        await self._engine.load(
            self.scratch.records(lane),
            RECORD_COLUMNS,
            "JSONCompactEachRow",
            await asyncio.to_thread(_record_rows, records),
            rows.LOAD_SETTINGS,
        )
        await self._engine.execute(
            rows.stage_events(self.scratch, lane, first, last), {"inexact": rows.INEXACT_PATTERN}
        )

    async def poison(
        self, records: Sequence[Record], first: int, last: int
    ) -> list[tuple[Record, str]]:
        """What the engine cannot read, and why. Tries each alone.

        Of records that say where each event is, it answers single events.
        """
        found = []
        for record in between(records, first, last):
            reason = await self._reason(record)
            if reason is None:
                continue
            parts = singles(record)
            if len(parts) < 2:
                found.append((record, reason))
                continue
            bad = [(one, why) for one in parts if (why := await self._reason(one)) is not None]
            found += bad or [(record, reason)]
        return found

    async def _reason(self, record: Record) -> str | None:
        try:
            await self.load([record], record.first_offset, record.offset)
        except UnreadableError as error:
            return str(error)
        return None

    async def check(self, staged: Staged, source: str) -> int:
        """Raises `ScratchLostError` when the tables do not hold what was judged any more.

        They are in the memory of the engine: after a restart of it they are empty, and inserts
        from them store nothing, without an error. Answers how many events are from a source.
        """
        found = await self._engine.query(
            f"SELECT count(), countIf(source = {{source:String}}) FROM {self.scratch.events}",
            {"source": source},
        )
        self._compare(found[0][0], len(staged.keys))
        return int(found[0][1])

    def _compare(self, found: int, expected: int) -> None:
        if found != expected:
            raise ScratchLostError(f"{found} of {expected} staged events are there")

    async def settled(self, source: str, judged: bool) -> list[tuple[str, str]]:
        """Namespace and id of the events from a source that count."""
        statement = rows.settled_events(self.scratch, judged)
        return [(row[0], row[1]) for row in await self._engine.query(statement, {"source": source})]

    async def judge(self, first: int, expected: int) -> Staged:
        """Decide which staged events count, given all that was stored before offset `first`.

        There must be as many as `expected`.
        """
        raw = await self._engine.fetch(
            f"SELECT h, content, off, idx FROM {self.scratch.events}", "RowBinary"
        )
        keys: Keys = np.frombuffer(raw, dtype=KEY_DTYPE)
        self._compare(len(keys), expected)
        suspects = await asyncio.to_thread(self._suspects, keys)
        verdicts = judge(suspects, await self._stored(suspects, first)) if len(suspects) else []
        if verdicts:
            await self._save(verdicts)
        kinds = [verdict.verdict for verdict in verdicts]
        return Staged(keys, kinds.count(DUPLICATE), kinds.count(CONFLICT))

    def _suspects(self, keys: Keys) -> Keys:
        doubtful = repeated(keys) | self.seen.maybe_seen(keys["low"])
        suspects: Keys = keys[doubtful]
        return suspects

    async def _stored(self, suspects: Keys, first: int) -> dict[int, list[int]]:
        # A plan that is applied again finds keys of its own first try: those do not count.
        await self._engine.load(
            self.scratch.suspects,
            ("h",),
            "RowBinary",
            np.stack([suspects["low"], suspects["high"]], axis=1).tobytes(),
        )
        raw = await self._engine.fetch(
            f"SELECT h, content FROM keys WHERE h GLOBAL IN (SELECT h FROM {self.scratch.suspects})"
            f" AND NOT (part = {self._part} AND off >= {first})",
            "RowBinary",
        )
        found: dict[int, list[int]] = {}
        for low, high, content in np.frombuffer(raw, dtype=_STORED_DTYPE).tolist():
            found.setdefault((high << 64) | low, []).append(content)
        return found

    async def _save(self, verdicts: Sequence[Verdict]) -> None:
        await self._engine.load(
            self.scratch.verdicts,
            ("off", "idx", "verdict"),
            "JSONCompactEachRow",
            encoded((one.off, one.idx, one.verdict) for one in verdicts),
        )

    async def read_points(
        self, series: Sequence[Series], judged: bool, first: int, last: int
    ) -> int:
        """Stage the points of every series; returns how many values could not be used.

        The events are those at offsets `first` to `last`.
        """
        if not series:
            return 0
        for some in rows.in_statements(series):
            statements = [
                rows.stage_points(self.scratch, some, judged, after, through)
                for after, through in _ranges(first, last, self._lanes)
            ]
            await all_done(*(self._engine.execute(one.sql, one.params) for one in statements))
        await self._read_exactly(series, judged)
        found = await self._engine.query(
            f"SELECT countIf(value IS NULL) FROM {self.scratch.points}"
        )
        return int(found[0][0])

    async def usages(self, series: Iterable[int], planned_at: datetime) -> list[Usage]:
        """What the staged points of these series add up to, by subject and dimensions."""
        wanted = ", ".join(map(str, sorted(series)))
        found = await self._engine.query(
            "SELECT series, subject, dims, if(time >= {at:DateTime64(6)}, time, NULL) AS due,"
            " sum(toDecimal256(assumeNotNull(value), 18)), count(), min(time), max(time)"
            f" FROM {self.scratch.points}"
            f" WHERE value IS NOT NULL AND series IN ({wanted})"
            " GROUP BY series, subject, dims, due",
            {"at": planned_at},
        )
        return [
            Usage(number, subject, tuple(dims), due, value, count, earliest, latest)
            for number, subject, dims, due, value, count, earliest, latest in found
        ]

    async def _read_exactly(self, series: Sequence[Series], judged: bool) -> None:
        """Stage the points of events whose numbers the engine would round."""
        table = by_type(series)
        found = await self._engine.query(
            "SELECT off, idx, subject, toString(time), ns, type, data"
            f" FROM {self.scratch.events} WHERE inexact = 1 AND type IN {{types:Array(String)}}"
            + rows.counted_sql(self.scratch, judged),
            {"types": sorted({event_type for _, event_type in table})},
        )
        lines = [
            (
                point.series,
                subject,
                time,
                self._part,
                off,
                idx,
                1,
                point.value,
                point.text,
                point.dims,
                point.reason,
            )
            for off, idx, subject, time, namespace, event_type, data in found
            for point in read_points(data, table.get((namespace, event_type), ()))
        ]
        if lines:
            columns = (*POINT_COLUMNS, "reason")
            await self._engine.load(
                self.scratch.points, columns, "JSONCompactEachRow", encoded(lines)
            )


async def all_done(*jobs: Awaitable[object]) -> None:
    """Run jobs side by side to the end of each, and only then raise what went wrong.

    A cancelled job would leave its statement running behind the back of the next try.
    """
    for result in await asyncio.gather(*jobs, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _lanes_for(records: Sequence[Record]) -> int:
    """How many lanes are worth it.

    The engine takes some 10 ms of CPU to understand a statement, however few rows it is about.
    """
    return LANES if sum(len(record.events) for record in records) >= _WORTH_LANES_BYTES else 1


def _shares(records: Sequence[Record], lanes: int) -> list[Sequence[Record]]:
    """The records in parts of about the same size, one for each lane."""
    sizes = np.cumsum([len(record.events) for record in records])
    cuts = np.searchsorted(sizes, [sizes[-1] * lane // lanes for lane in range(1, lanes)])
    bounds = [0, *cuts.tolist(), len(records)]
    return [records[start:end] for start, end in pairwise(bounds)]


def _ranges(first: int, last: int, lanes: int) -> list[tuple[int, int]]:
    """Offsets `first` to `last` in as many ranges (after, through] as there are lanes."""
    bounds = [first - 1 + (last - first + 1) * lane // lanes for lane in range(lanes + 1)]
    return [(after, through) for after, through in pairwise(bounds) if after < through]


def _record_rows(records: Sequence[Record]) -> bytes:
    return b"\n".join(map(_record_row, records))


def _record_row(record: Record) -> bytes:
    namespace = msgspec.json.encode(record.namespace)
    at = round(record.ingested_at.timestamp() * 1000)
    offsets, moments = b"[]", b"[]"
    if record.places is not None:
        offsets = msgspec.json.encode(record.places.offsets)
        moments = msgspec.json.encode(record.places.ingested_at_ms)
    return b"[%d,%b,%d,%b,%b,%b]" % (
        record.offset, namespace, at, offsets, moments, record.events,
    )  # fmt: skip
