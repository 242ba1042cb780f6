"""From records to staged, judged rows: what the sink does before it touches a table."""

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

import msgspec
import numpy as np

from aggregator import rows
from aggregator.dedupe import KEY_DTYPE, Keys, SeenKeys, Verdict, judge, repeated
from aggregator.exact import by_type, read_points
from aggregator.rows import CONFLICT, DUPLICATE
from aggregator.series import Series
from aggregator.stores.engine import Engine, UnreadableError
from meterline.eventlog.port import Record
from meterline.kernel.usage import Usage

_RECORD_COLUMNS = ("off", "ns", "at", "e")
_STORED_DTYPE = np.dtype([("low", "<u8"), ("high", "<u8"), ("content", "<u8")])


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
    """The scratch tables of one partition's sink."""

    def __init__(self, engine: Engine, part: int, seen: SeenKeys) -> None:
        self._engine = engine
        self._part = part
        self._seen = seen

    async def create(self) -> None:
        """Make the tables, empty."""
        for statement in rows.staging_tables(self._part):
            await self._engine.execute(statement)

    async def load(self, records: Sequence[Record]) -> None:
        """Fill the staging table with the events of `records`, and nothing else.

        Raises `UnreadableError` when the engine cannot read them.
        """
        for table in rows.staging_names(self._part):
            await self._engine.execute(f"TRUNCATE TABLE {table}")
        if not records:
            return
        await all_done(
            *(self._load(lane, chosen) for lane, chosen in enumerate(_lanes(records)) if chosen)
        )

    async def _load(self, lane: int, records: Sequence[Record]) -> None:
        await self._engine.load(
            f"staging_records_{self._part}_{lane}",
            _RECORD_COLUMNS,
            "JSONCompactEachRow",
            await asyncio.to_thread(_record_rows, records),
            rows.LOAD_SETTINGS,
        )
        await self._engine.execute(
            rows.stage_events(self._part, lane), {"inexact": rows.INEXACT_PATTERN}
        )

    async def poison(self, records: Sequence[Record]) -> dict[int, str]:
        """Which of the records the engine cannot read, by offset, and why. Tries each alone."""
        reasons = {}
        for record in records:
            try:
                await self.load([record])
            except UnreadableError as error:
                reasons[record.offset] = str(error)
        return reasons

    async def judge(self, first: int) -> Staged:
        """Decide which staged events count, given all that was stored before offset `first`."""
        raw = await self._engine.fetch(
            f"SELECT h, content, off, idx FROM staging_{self._part}", "RowBinary"
        )
        keys: Keys = np.frombuffer(raw, dtype=KEY_DTYPE)
        suspects = await asyncio.to_thread(self._suspects, keys)
        verdicts = judge(suspects, await self._stored(suspects, first)) if len(suspects) else []
        if verdicts:
            await self._save(verdicts)
        kinds = [verdict.verdict for verdict in verdicts]
        return Staged(keys, kinds.count(DUPLICATE), kinds.count(CONFLICT))

    def _suspects(self, keys: Keys) -> Keys:
        doubtful = repeated(keys) | self._seen.maybe_seen(keys["low"])
        suspects: Keys = keys[doubtful]
        return suspects

    async def _stored(self, suspects: Keys, first: int) -> dict[int, list[int]]:
        # A plan that is applied again finds keys of its own first try: those do not count.
        await self._engine.load(
            f"staging_suspects_{self._part}",
            ("h",),
            "RowBinary",
            np.stack([suspects["low"], suspects["high"]], axis=1).tobytes(),
        )
        raw = await self._engine.fetch(
            f"SELECT h, content FROM keys WHERE h IN (SELECT h FROM staging_suspects_{self._part})"
            f" AND NOT (part = {self._part} AND off >= {first})",
            "RowBinary",
        )
        found: dict[int, list[int]] = {}
        for low, high, content in np.frombuffer(raw, dtype=_STORED_DTYPE).tolist():
            found.setdefault((high << 64) | low, []).append(content)
        return found

    async def _save(self, verdicts: Sequence[Verdict]) -> None:
        lines = "\n".join(f"[{one.off},{one.idx},{one.verdict}]" for one in verdicts)
        await self._engine.load(
            f"staging_verdicts_{self._part}",
            ("off", "idx", "verdict"),
            "JSONCompactEachRow",
            lines.encode(),
        )

    async def read_points(
        self, series: Sequence[Series], judged: bool, first: int, last: int
    ) -> int:
        """Stage the points of every series; returns how many values could not be used.

        The events are those at offsets `first` to `last`.
        """
        if not series:
            return 0
        statements = [
            rows.stage_points(self._part, series, judged, after, through)
            for after, through in _offset_lanes(first, last)
        ]
        await all_done(
            *(self._engine.execute(one.sql, one.params) for one in statements if one is not None)
        )
        await self._read_exactly(series, judged)
        found = await self._engine.query(
            f"SELECT countIf(value IS NULL) FROM staging_points_{self._part}"
        )
        return int(found[0][0])

    async def usages(self, series: Iterable[int], planned_at: datetime) -> list[Usage]:
        """What the staged points of these series add up to, by subject and dimensions."""
        wanted = ", ".join(map(str, sorted(series)))
        found = await self._engine.query(
            "SELECT series, subject, dims, if(time >= {at:DateTime64(6)}, time, NULL) AS due,"
            " sum(toDecimal256(assumeNotNull(value), 18)), count(), min(time), max(time)"
            f" FROM staging_points_{self._part}"
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
            f" FROM staging_{self._part} WHERE inexact = 1 AND type IN {{types:Array(String)}}"
            + rows.counted_sql(self._part, judged),
            {"types": sorted({event_type for _, event_type in table})},
        )
        lines = [
            _row(
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
            )  # fmt: skip
            for off, idx, subject, time, namespace, event_type, data in found
            for point in read_points(data, table.get((namespace, event_type), ()))
        ]
        if lines:
            await self._engine.load(
                f"staging_points_{self._part}",
                (
                    "series",
                    "subject",
                    "time",
                    "part",
                    "off",
                    "idx",
                    "exact",
                    "value",
                    "text",
                    "dims",
                    "reason",
                ),  # fmt: skip
                "JSONCompactEachRow",
                b"\n".join(lines),
            )


async def all_done(*jobs: Awaitable[object]) -> None:
    """Run jobs side by side to the end of each, and only then raise what went wrong.

    A cancelled job would leave its statement running behind the back of the next try.
    """
    for result in await asyncio.gather(*jobs, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _lanes(records: Sequence[Record]) -> list[Sequence[Record]]:
    """The records in parts of about the same size, one for each lane."""
    sizes = np.cumsum([len(record.events) for record in records])
    cuts = np.searchsorted(sizes, [sizes[-1] * lane // rows.LANES for lane in range(1, rows.LANES)])
    bounds = [0, *cuts.tolist(), len(records)]
    return [records[start:end] for start, end in pairwise(bounds)]


def _offset_lanes(first: int, last: int) -> list[tuple[int, int]]:
    """Offsets `first` to `last` in as many ranges (after, through] as there are lanes."""
    bounds = [first - 1 + (last - first + 1) * lane // rows.LANES for lane in range(rows.LANES + 1)]
    return [(after, through) for after, through in pairwise(bounds) if after < through]


def _record_rows(records: Sequence[Record]) -> bytes:
    return b"\n".join(map(_record_row, records))


def _record_row(record: Record) -> bytes:
    namespace = msgspec.json.encode(record.namespace)
    at = round(record.ingested_at.timestamp() * 1000)
    return b"[%d,%b,%d,%b]" % (record.offset, namespace, at, record.events)


def _row(*cells: object) -> bytes:
    # Decimals are encoded as strings, which the engine reads exactly.
    return msgspec.json.encode(cells)
