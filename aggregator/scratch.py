"""The scratch tables of a sink's worker: their names and their making. Pure: text, no I/O.

They live in memory only, and carry the epoch with which the worker took its partition. The next
worker drops them, so that a worker that was cut off can do nothing more to the event store: every
statement of it reads one of them.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

EVENT_FIELDS = (
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "data",
    "_raw",
    "data_base64",
    "_ext",
)
"""Members of a canonical event object, as the ingest gateway writes them."""

RECORD_COLUMNS = ("off", "ns", "at", "offs", "ats", "e")
POINT_COLUMNS = (
    "series", "subject", "time", "part", "off", "idx", "exact", "value", "text", "dims",
)  # fmt: skip
FAULT_COLUMNS = ("series", "part", "off", "idx", "exact", "reason")

_PREFIX = "staging"
_NAME = re.compile(r"staging_[a-z]+[0-9]*_p([0-9]+)_e([0-9]+)")
_PLACE = "off UInt64, idx UInt32"
_POINT = (
    "series UInt32, subject String, time DateTime64(6, 'UTC'), part UInt16, off UInt64,"
    " idx UInt32, exact UInt8, value Nullable(Decimal(38, 18)), text String, dims Array(String)"
)


@dataclass(frozen=True, slots=True)
class Scratch:
    """A set of tables of one worker of a partition."""

    part: int
    epoch: int
    slot: int = 0
    """Which set: while one is stored, another one is filled."""

    @property
    def records(self) -> str:
        """The records as they are in the log."""
        return self._name("records")

    @property
    def events(self) -> str:
        """A row per event, in the order that the store keeps."""
        return self._name("events")

    @property
    def suspects(self) -> str:
        """Keys that may have been seen before."""
        return self._name("suspects")

    @property
    def verdicts(self) -> str:
        """Which events do not count."""
        return self._name("verdicts")

    @property
    def points(self) -> str:
        """What every series makes of the events that count."""
        return self._name("points")

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [self.records, self.events, self.suspects, self.verdicts, self.points]

    def ddl(self) -> list[str]:
        """The statements that make them, empty."""
        event = ", ".join(f"{name} String" for name in EVENT_FIELDS)
        return [
            _create(
                self.records,
                "off UInt64, ns String, at Int64, offs Array(UInt64), ats Array(Int64),"
                f" e Array(Tuple({event}))",
            ),
            _create(
                self.events,
                f"part UInt16, {_PLACE}, ns LowCardinality(String),"
                " id String, source LowCardinality(String), type LowCardinality(String),"
                " subject String, time DateTime64(6, 'UTC'), time_given UInt8,"
                " datacontenttype LowCardinality(String), data String, data_base64 String,"
                " ext String, ingested_at DateTime64(3, 'UTC'), h UInt128, content UInt64,"
                " inexact UInt8",
            ),
            _create(self.suspects, "h UInt128"),
            _create(self.verdicts, f"{_PLACE}, verdict UInt8"),
            _create(self.points, f"{_POINT}, reason String"),
        ]

    def older(self, names: Iterable[str]) -> list[str]:
        """Which of these tables belong to workers of the partition before this one.

        Tables without an epoch are those of a Meterline that knew none.
        """
        found = ((name, _NAME.fullmatch(name)) for name in names if name.startswith(_PREFIX))
        return [
            name
            for name, match in found
            if match is None or (int(match[1]) == self.part and int(match[2]) < self.epoch)
        ]

    def _name(self, kind: str) -> str:
        return f"{_PREFIX}_{kind}{self.slot or ''}_p{self.part}_e{self.epoch}"


@dataclass(frozen=True, slots=True)
class Lease:
    """The scratch tables of the process that leads; every insert of a back-fill reads one."""

    leader: int

    @property
    def points(self) -> str:
        """Points on their way into the store."""
        return f"backfill_points_e{self.leader}"

    @property
    def faults(self) -> str:
        """Faults on their way into the store."""
        return f"backfill_faults_e{self.leader}"

    def ddl(self) -> list[str]:
        """The statements that make them, empty."""
        fault = "series UInt32, part UInt16, off UInt64, idx UInt32, exact UInt8, reason String"
        return [_create(self.points, _POINT), _create(self.faults, fault)]

    def older(self, names: Iterable[str]) -> list[str]:
        """Which of these tables belong to leaders before this one."""
        found = ((name, re.fullmatch(r"backfill_[a-z]+_e([0-9]+)", name)) for name in names)
        return [name for name, match in found if match and int(match[1]) < self.leader]


FIND_SCRATCH = (
    "SELECT name FROM system.tables WHERE database = currentDatabase()"
    " AND (startsWith(name, 'staging_') OR startsWith(name, 'backfill_'))"
)


def encoded(rows: Iterable[tuple[object, ...]]) -> bytes:
    """Rows as JSONCompactEachRow. Decimals become strings, which the engine reads exactly."""
    return b"\n".join(map(msgspec.json.encode, rows))


def _create(name: str, columns: str) -> str:
    return f"CREATE OR REPLACE TABLE {name} ({columns}) ENGINE = Memory"
