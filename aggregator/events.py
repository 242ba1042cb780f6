"""The stored events of a namespace, newest first, with what was wrong with each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import msgspec

from aggregator.binding import Binder
from aggregator.query import TimeRange
from aggregator.rows import Statement
from aggregator.series import Series
from aggregator.stores.engine import EngineError
from meterline.kernel.errors import UnavailableError
from meterline.kernel.instants import format_instant, from_micros, to_micros
from meterline.kernel.meters import Meter

CONFLICT = "conflict: an event with this source and id was stored before with other content"

_COLUMNS = (
    "toUnixTimestamp64Micro(time), part, off, idx, status, id, source, type, subject,"
    " datacontenttype, data, data_base64, ext, toUnixTimestamp64Milli(ingested_at),"
    " toUnixTimestamp64Milli(stored_at)"
)
_NEWEST_FIRST = "time DESC, part DESC, off DESC, idx DESC"

Position = tuple[int, int, int, int]
"""Where an event is in the listing: its time in microseconds, and its place in the log."""


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events to list. What is None does not matter.

    `event_id` may stand anywhere in the id; the other texts must be equal. `has_error` asks for
    events with (or without) a validation error. `before` is the position of the last event seen.
    `data` holds texts that members of the data must have; `counted` leaves conflicts out.
    """

    times: TimeRange = TimeRange()
    ingested: TimeRange = TimeRange()
    event_id: str | None = None
    subject: str | None = None
    type: str | None = None
    source: str | None = None
    has_error: bool | None = None
    before: Position | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    counted: bool = False


@dataclass(frozen=True, slots=True)
class ListedEvent:
    """One stored event. `event` is its CloudEvent JSON, with the data as it was sent."""

    position: Position
    event: bytes
    ingested_at: datetime
    stored_at: datetime
    validation_error: str | None


class Meters(Protocol):
    """What the listing needs to know of meters."""

    async def list(self, namespace: str) -> Sequence[Meter]:
        """The meters of a namespace."""
        ...


class SeriesReader(Protocol):
    """Which series holds a meter's values."""

    async def readable(self, meters: Iterable[Meter]) -> Iterable[Series]:
        """The series of meters, as far as they can be read by now."""
        ...


class EventReader(Protocol):
    """The reading half of the event store's engine."""

    async def query(self, sql: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """The rows of a read."""
        ...


@dataclass(frozen=True, slots=True)
class Measured:
    """What is measured in a namespace: its event types, and the series that can have faults."""

    types: tuple[str, ...]
    series: tuple[int, ...]


class EventService:
    """Lists stored events."""

    def __init__(self, meters: Meters, series: SeriesReader, events: EventReader) -> None:
        self._meters = meters
        self._series = series
        self._events = events

    async def list(self, namespace: str, wanted: EventFilter, limit: int) -> Sequence[ListedEvent]:
        """Up to `limit` events, newest first, from the one after `wanted.before`."""
        measured = await self._measured(await self._meters.list(namespace))
        found = await self._read(events_statement(namespace, wanted, measured, limit))
        faults = await self._faults(measured, [row[1:4] for row in found])
        return [_listed(row, measured, faults) for row in found]

    async def _measured(self, meters: Sequence[Meter]) -> Measured:
        types = {meter.event_type for meter in meters}
        # Of those still in the making faults are not known yet.
        series = {one.id for one in await self._series.readable(meters)}
        return Measured(tuple(sorted(types)), tuple(sorted(series)))

    async def _faults(
        self, measured: Measured, places: Iterable[Sequence[int]]
    ) -> Mapping[tuple[int, int, int], str]:
        listed = ", ".join(f"({part}, {off}, {idx})" for part, off, idx in places)
        if not listed or not measured.series:
            return {}
        found = await self._read(
            Statement(
                "SELECT part, off, idx, arrayStringConcat(arraySort(groupUniqArray(reason)), '; ')"
                f" FROM faults WHERE series IN ({_ids(measured)})"
                f" AND (part, off, idx) IN ({listed}) GROUP BY part, off, idx"
            )
        )
        return {(part, off, idx): reason for part, off, idx, reason in found}

    async def _read(self, statement: Statement) -> "Rows":
        try:
            return await self._events.query(statement.sql, statement.params)
        except EngineError as error:
            raise UnavailableError("the event store could not answer") from error


Rows = list[tuple[Any, ...]]


def events_statement(
    namespace: str, wanted: EventFilter, measured: Measured, limit: int
) -> Statement:
    """The newest events that pass a filter."""
    bind = Binder()
    conditions = [f"ns = {bind(namespace)}"]
    if wanted.type is not None:
        conditions.append(f"type = {bind(wanted.type)}")
    if wanted.subject is not None:
        conditions.append(f"subject = {bind(wanted.subject)}")
    if wanted.source is not None:
        conditions.append(f"source = {bind(wanted.source)}")
    if wanted.event_id is not None:
        conditions.append(f"position(id, {bind(wanted.event_id)}) > 0")
    if wanted.counted:
        conditions.append("status = 0")
    for name, text in wanted.data.items():
        conditions.append(f"JSONExtractString(data, {bind(name)}) = {bind(text)}")
    conditions += _between("time", wanted.times, bind)
    conditions += _between("ingested_at", wanted.ingested, bind)
    if wanted.before is not None:
        micros, part, off, idx = wanted.before
        time = f"fromUnixTimestamp64Micro({bind(micros, 'Int64')}, 'UTC')"
        place = f"({bind(part, 'UInt16')}, {bind(off, 'UInt64')}, {bind(idx, 'UInt32')})"
        conditions.append(f"(time < {time} OR time = {time} AND (part, off, idx) < {place})")
    if wanted.has_error is not None:
        wrong = _is_wrong(measured, bind)
        conditions.append(wrong if wanted.has_error else f"NOT {wrong}")
    sql = (
        f"SELECT {_COLUMNS} FROM events WHERE {' AND '.join(conditions)}"
        f" ORDER BY {_NEWEST_FIRST} LIMIT {limit}"
    )
    return Statement(sql, bind.params)


def _is_wrong(measured: Measured, bind: Binder) -> str:
    parts = ["status = 1"]
    if measured.types:
        parts.append(f"type NOT IN {bind(list(measured.types), 'Array(String)')}")
    else:
        parts.append("true")
    if measured.series:
        faults = f"SELECT part, off, idx FROM faults WHERE series IN ({_ids(measured)})"
        parts.append(f"(part, off, idx) IN ({faults})")
    return f"({' OR '.join(parts)})"


def _ids(measured: Measured) -> str:
    return ", ".join(map(str, measured.series))


def _between(column: str, span: TimeRange, bind: Binder) -> list[str]:
    return [
        f"{column} {sign} fromUnixTimestamp64Micro({bind(to_micros(t), 'Int64')}, 'UTC')"
        for sign, t in ((">=", span.begin), ("<", span.end))
        if t is not None
    ]


def _listed(
    row: Sequence[Any], measured: Measured, faults: Mapping[tuple[int, int, int], str]
) -> ListedEvent:
    micros, part, off, idx, status, event_id, source, event_type, subject, *rest = row
    content_type, data, data_base64, ext, ingested, stored = rest
    error = faults.get((part, off, idx))
    if status:
        error = CONFLICT
    elif event_type not in measured.types:
        error = f"no meter found for event type: {event_type}"
    members = {
        "specversion": "1.0",
        "id": event_id,
        "source": source,
        "type": event_type,
        "subject": subject,
        "time": format_instant(from_micros(micros)),
        "datacontenttype": content_type,
        "data_base64": data_base64,
    }
    return ListedEvent(
        position=(micros, part, off, idx),
        event=cloud_event(members, ext, data),
        ingested_at=from_micros(ingested * 1000),
        stored_at=from_micros(stored * 1000),
        validation_error=error,
    )


def cloud_event(members: Mapping[str, str], extensions: str, data: str) -> bytes:
    """CloudEvent JSON: the members that are not empty, an object of extensions, raw data."""
    head = msgspec.json.encode({name: text for name, text in members.items() if text})
    parts = [head[1:-1]]
    if extensions:
        parts.append(extensions.strip()[1:-1].strip().encode())
    if data:
        parts.append(b'"data":' + data.encode())
    return b"{" + b",".join(part for part in parts if part) + b"}"
