"""What a meter query means, in plain Python over plain events: the oracle of the store's tests."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Context, Decimal

from aggregator.filters import matches
from aggregator.query import MeterQuery, QueryRow, row_order, utc_floor
from meterline.kernel import quantity
from meterline.kernel.jsonpath import find, parse_path
from meterline.kernel.meters import Aggregation, Meter
from meterline.kernel.quantity import ValueFault
from meterline.kernel.windows import window_end, window_start

_EXACT = Context(prec=200)


@dataclass(frozen=True, slots=True)
class PlainEvent:
    """An event that counts. `place` is where it was in the log; `data` is its raw JSON text."""

    subject: str
    time: datetime
    place: tuple[int, int, int]
    data: str


@dataclass(frozen=True, slots=True)
class Point:
    """What a meter reads from one event."""

    subject: str
    time: datetime
    place: tuple[int, int, int]
    value: Decimal
    text: str
    dims: tuple[tuple[str, str], ...]


def points(meter: Meter, events: Iterable[PlainEvent]) -> list[Point]:
    """The points of the events that the meter can use."""
    found = []
    for event in events:
        value, text = _value(meter, event)
        if value is None:
            continue
        dims = tuple(
            (key, quantity.dimension_text(find(event.data, parse_path(path))))
            for key, path in meter.group_by.items()
        )
        found.append(Point(event.subject, event.time, event.place, value, text, dims))
    return found


def answer(meter: Meter, query: MeterQuery, found: Iterable[Point]) -> list[QueryRow]:
    """The rows of a query over a meter's points."""
    groups: dict[tuple[datetime | None, str, tuple[str, ...]], list[Point]] = {}
    for point in found:
        if not _wanted(query, point):
            continue
        dims = dict(point.dims)
        start = window_start(point.time, query.window, query.tz) if query.window else None
        subject = point.subject if query.by_subject else ""
        key = (start, subject, tuple(dims[name] for name in query.group_by))
        groups.setdefault(key, []).append(point)
    rows = [_row(meter, query, key, members) for key, members in groups.items()]
    return sorted(rows, key=row_order)


def _value(meter: Meter, event: PlainEvent) -> tuple[Decimal | None, str]:
    if meter.aggregation is Aggregation.COUNT:
        return Decimal(1), ""
    raw = find(event.data, parse_path(meter.value_property or ""))
    if meter.aggregation is Aggregation.UNIQUE_COUNT:
        text = quantity.text_value(raw)
        return (None, "") if isinstance(text, ValueFault) else (Decimal(0), text)
    value = quantity.parse_value(raw)
    return (None, "") if isinstance(value, ValueFault) else (value, "")


def _wanted(query: MeterQuery, point: Point) -> bool:
    dims = dict(point.dims)
    return (
        (query.since is None or point.time >= query.since)
        and (query.range.end is None or point.time < query.range.end)
        and (not query.subjects or point.subject in query.subjects)
        and all(matches(condition, dims[key]) for key, condition in query.filters)
    )


def _row(
    meter: Meter,
    query: MeterQuery,
    key: tuple[datetime | None, str, tuple[str, ...]],
    members: Sequence[Point],
) -> QueryRow:
    start, subject, dims = key
    if start is not None and query.window is not None:
        end = window_end(start, query.window, query.tz)
    else:
        times = [point.time for point in members]
        start = query.range.begin or utc_floor(min(times))
        end = query.range.end or utc_floor(max(times)) + timedelta(minutes=1)
    return QueryRow(
        window_start=start,
        window_end=end,
        subject=subject if query.by_subject else None,
        group_by=dict(zip(query.group_by, dims, strict=True)),
        value=_AGGREGATES[meter.aggregation](members),
    )


def _sum(members: Sequence[Point]) -> Decimal:
    total = Decimal(0)
    for point in members:
        total = _EXACT.add(total, point.value)
    return total


_AGGREGATES: dict[Aggregation, Callable[[Sequence[Point]], Decimal]] = {
    Aggregation.SUM: _sum,
    Aggregation.COUNT: lambda members: Decimal(len(members)),
    Aggregation.AVG: lambda members: quantity.average(_sum(members), len(members)),
    Aggregation.MIN: lambda members: min(point.value for point in members),
    Aggregation.MAX: lambda members: max(point.value for point in members),
    Aggregation.UNIQUE_COUNT: lambda members: Decimal(len({point.text for point in members})),
    Aggregation.LATEST: lambda members: (
        max(members, key=lambda point: (point.time, point.place)).value
    ),
}
