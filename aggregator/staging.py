"""From records to staged, judged rows: what the sink does before it touches a table."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import msgspec
import numpy as np

from aggregator import rows
from aggregator.cutting import between, singles
from aggregator.dedupe import KEY_DTYPE, Keys, Verdict, judge, repeated
from aggregator.exact import by_type, read_points
from aggregator.rows import CONFLICT, DUPLICATE
from aggregator.scratch import FIND_SCRATCH, POINT_COLUMNS, RECORD_COLUMNS, Scratch, encoded
from aggregator.seen import KnownKeys
from aggregator.series import Series
from aggregator.stores.engine import Engine, UnreadableError
from meterline.eventlog.port import Record
from meterline.kernel.usage import HOLD_SOURCE, Usage

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
    def settling(self) -> bool:
        """Whether there are events that settle holds."""
        return bool(self.keys["settles"].any())

    @property
    def judged(self) -> bool:
        """Whether the verdicts table has rows to heed."""
        return self.duplicates + self.conflicts > 0

    @property
    def stored(self) -> int:
        """Events that the plan adds to the store, conflicts included."""
        return len(self.keys) - self.duplicates


class Staging:
    """A set of scratch tables of one partition's worker."""

    def __init__(self, engine: Engine, part: int, known: KnownKeys, slot: int = 0) -> None:
        self._engine = engine
        self._part = part
        self._known = known
        self._slot = slot
        self.scratch = Scratch(part, 0, slot)
        self._keys: Keys | None = None
        self._inexact = False
        self._filled = set[str]()
        self._points: tuple[tuple[int, ...], bool, int] | None = None

    async def create(self, epoch: int) -> None:
        """Make the tables, empty, and drop those of the workers before."""
        self.scratch = Scratch(self._part, epoch, self._slot)
        self._filled.clear()
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
        self._keys = self._points = None
        await self._empty(*self.scratch.names)
        if not records:
            return
        await self._engine.load(
            self._filling(self.scratch.records),
            RECORD_COLUMNS,
            "JSONCompactEachRow",
            await asyncio.to_thread(_record_rows, records),
            rows.LOAD_SETTINGS,
        )
        self._filling(self.scratch.events)
        await self._engine.execute(
            rows.stage_events(self.scratch, first, last),
            {"inexact": rows.INEXACT_PATTERN},
            rows.ONE_BLOCK,
        )
        # As large as the events, and of no more use.
        await self._empty(self.scratch.records)

    def _filling(self, table: str) -> str:
        """A table's name, for a statement that may leave something in it."""
        self._filled.add(table)
        return table

    async def _empty(self, *tables: str) -> None:
        for table in tables:
            if table in self._filled:
                await self._engine.execute(f"TRUNCATE TABLE {table}")
                self._filled.remove(table)

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

    async def check(self, staged: Staged) -> None:
        """Raises `ScratchLostError` when the tables do not hold what was judged any more.

        They are in the memory of the engine: after a restart of it they are empty, and inserts
        from them store nothing, without an error.
        """
        found = await self._engine.query(f"SELECT count() FROM {self.scratch.events}")
        self._compare(found[0][0], len(staged.keys))

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
        keys = await self.keys() if self._keys is None else self._keys
        self._compare(len(keys), expected)
        suspects = await asyncio.to_thread(self._suspects, keys)
        verdicts = judge(suspects, await self._stored(suspects, first)) if len(suspects) else []
        if verdicts:
            await self._save(verdicts)
        kinds = [verdict.verdict for verdict in verdicts]
        return Staged(keys, kinds.count(DUPLICATE), kinds.count(CONFLICT))

    async def keys(self) -> Keys:
        """The keys of the staged events."""
        raw = await self._engine.fetch(
            "SELECT h, content, off, idx, inexact, source = {source:String}"
            f" FROM {self.scratch.events}",
            "RowBinary",
            {"source": HOLD_SOURCE},
        )
        self._keys = np.frombuffer(raw, dtype=KEY_DTYPE)
        self._inexact = bool(self._keys["inexact"].any())
        return self._keys

    def _suspects(self, keys: Keys) -> Keys:
        doubtful = repeated(keys) | self._known.seen.maybe_seen(keys["low"])
        suspects: Keys = keys[doubtful]
        return suspects

    async def _stored(self, suspects: Keys, first: int) -> dict[int, list[int]]:
        # A plan that is applied again finds keys of its own first try: those do not count.
        await self._engine.load(
            self._filling(self.scratch.suspects),
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
            self._filling(self.scratch.verdicts),
            ("off", "idx", "verdict"),
            "JSONCompactEachRow",
            encoded((one.off, one.idx, one.verdict) for one in verdicts),
        )

    async def read_points(self, series: Sequence[Series], judged: bool) -> int:
        """Stage the points of every series; returns how many values could not be used.

        `judged`: whether there are verdicts to heed. What is staged already is not staged again.
        """
        wanted = (tuple(one.id for one in series), judged)
        if self._points is not None and self._points[:2] == wanted:
            return self._points[2]
        self._points = None
        await self._empty(self.scratch.points)
        faults = await self._read_points(series, judged) if series else 0
        self._points = (*wanted, faults)
        return faults

    async def _read_points(self, series: Sequence[Series], judged: bool) -> int:
        self._filling(self.scratch.points)
        for some in rows.in_statements(series):
            statement = rows.stage_points(self.scratch, some, judged)
            await self._engine.execute(statement.sql, statement.params, rows.ONE_BLOCK)
        if self._inexact:
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


def _record_rows(records: Sequence[Record]) -> bytes:
    # Joined once: the events are many megabytes.
    return b"".join(part for record in records for part in _record_row(record))


def _record_row(record: Record) -> Sequence[bytes]:
    namespace = msgspec.json.encode(record.namespace)
    at = round(record.ingested_at.timestamp() * 1000)
    offsets, moments = b"[]", b"[]"
    if record.places is not None:
        offsets = msgspec.json.encode(record.places.offsets)
        moments = msgspec.json.encode(record.places.ingested_at_ms)
    head = b"[%d,%b,%d,%b,%b," % (record.offset, namespace, at, offsets, moments)
    return head, record.events, b"]\n"
