"""From records of a topic to records of the log. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import attrgetter

import msgspec

from meterline.eventlog.kafka_codec import (
    CONTENT_TYPE,
    NAMESPACE,
    STRUCTURED,
    Codec,
    Decoded,
    Headers,
    UnreadableRecordError,
)
from meterline.eventlog.kafka_rows import Row
from meterline.eventlog.port import Places, Record

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MS = 253_402_300_799_999
_MAX_NAMESPACE = 4_096
_headers_of = attrgetter("headers")
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


@dataclass(frozen=True, slots=True)
class Assembled:
    """What was made of some rows: records to be read here, and rows that belong elsewhere."""

    records: Sequence[Record]
    strays: Sequence[tuple[int, Row]]
    """Home partition, and the row."""


@dataclass(slots=True)
class _Open:
    """The record that is being put together."""

    namespace: str = ""
    arrays: list[bytes] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)


class Assembler:
    """Puts the records of one partition together."""

    def __init__(
        self, codec: Codec, partition: int, partitions: int, default_namespace: str
    ) -> None:
        self._codec = codec
        self._partition = partition
        self._partitions = partitions
        self._default = default_namespace
        self._home = {partition}
        self._open = _Open()
        self._records: list[Record] = []
        self._strays: list[tuple[int, Row]] = []

    def assemble(self, rows: Sequence[Row]) -> Assembled:
        """All that is in the rows, in their order."""
        for headers, run in groupby(rows, key=_headers_of):
            self._add_run(headers, list(run))
        self._finish()
        records, self._records = self._records, []
        strays, self._strays = self._strays, []
        return Assembled(records, strays)

    def _add_run(self, headers: Headers, rows: list[Row]) -> None:
        """Rows with the same headers."""
        found = dict(reversed(headers))  # the first of a name counts
        try:
            namespace = _namespace(found.get(NAMESPACE), self._default)
        except UnreadableRecordError as error:
            for row in rows:
                self._add_fault(row, str(error))
            return
        values = [row.value for row in rows]
        plain = found.get(CONTENT_TYPE) == STRUCTURED and None not in values
        decoded: Sequence[Decoded | None] = (
            self._codec.decode_many(namespace, values)  # type: ignore[arg-type]
            if plain
            else [None] * len(rows)
        )
        at = 0
        for one in decoded:
            if one is None:
                self._add_single(namespace, headers, rows[at])
                at += 1
            else:
                self._add(namespace, rows[at : at + one.count], one)
                at += one.count

    def _add_single(self, namespace: str, headers: Headers, row: Row) -> None:
        try:
            one = self._codec.decode(namespace, headers, row.key, row.value)
        except UnreadableRecordError as error:
            self._add_fault(row, str(error))
        else:
            self._add(namespace, [row], one)

    def _add(self, namespace: str, rows: Sequence[Row], decoded: Decoded) -> None:
        """Events of one namespace; those that are at home elsewhere are left out."""
        homes = [hashed % self._partitions for hashed in decoded.hashes]
        events = decoded.events
        if not self._home.issuperset(homes):
            here = [index for index, home in enumerate(homes) if home == self._partition]
            away = [index for index, home in enumerate(homes) if home != self._partition]
            self._strays += [(homes[index], rows[index]) for index in away]
            if not here:
                return
            raws = _decode_raws(events)
            events = b"[" + b",".join([raws[index] for index in here]) + b"]"
            rows = [rows[index] for index in here]
        if self._open.namespace != namespace:
            self._finish()
            self._open.namespace = namespace
        self._open.arrays.append(events)
        self._open.offsets += [row.offset + 1 for row in rows]
        self._open.times += [row.timestamp or 0 for row in rows]

    def _finish(self) -> None:
        """Close the record that is open."""
        one = self._open
        if not one.offsets:
            return
        self._open = _Open()
        if not 0 <= min(one.times) <= max(one.times) <= _LAST_MS:
            one.times = [_bounded(time) for time in one.times]
        arrays = one.arrays
        events = (
            arrays[0]
            if len(arrays) == 1
            else b"[" + b",".join([array[1:-1] for array in arrays]) + b"]"
        )
        self._records.append(
            Record(
                self._partition,
                one.offsets[-1],
                one.namespace,
                instant(one.times[0]),
                len(one.offsets),
                events,
                Places(one.offsets, one.times),
            )
        )

    def _add_fault(self, row: Row, reason: str) -> None:
        self._finish()
        self._records.append(
            Record(
                self._partition,
                row.offset + 1,
                self._default,
                instant(row.timestamp or 0),
                0,
                row.value or b"",
                fault=reason,
            )
        )


def instant(milliseconds: int) -> datetime:
    """A record's timestamp, which any producer may have made up."""
    return _EPOCH + timedelta(milliseconds=_bounded(milliseconds))


def _bounded(milliseconds: int) -> int:
    return min(max(milliseconds, 0), _LAST_MS)


def _namespace(header: bytes | None, default: str) -> str:
    if header is None:
        return default
    try:
        namespace = header.decode()
    except UnicodeDecodeError:
        raise UnreadableRecordError(f"the header {NAMESPACE} is not UTF-8") from None
    if len(namespace) > _MAX_NAMESPACE:
        raise UnreadableRecordError(
            f"the header {NAMESPACE} has more than {_MAX_NAMESPACE} characters"
        )
    return namespace
