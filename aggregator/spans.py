"""The values of one subject over many spans of time, in one read: what balances ask of a meter."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from aggregator import sql
from aggregator.binding import Binder
from aggregator.filters import Membership
from aggregator.query import MeterQuery, TimeRange
from aggregator.rows import Statement
from aggregator.series import Series
from meterline.kernel.instants import to_micros
from meterline.kernel.meters import Meter

Span = tuple[datetime, datetime]
"""Half-open."""


@dataclass(frozen=True, slots=True)
class SpanQuery:
    """A meter's values of one subject, filtered by groupBy keys: each must be one of its texts.

    `through` bounds the events by their offset in each partition, for an answer that belongs to
    one position of the sink; None takes all there is.
    """

    subject: str
    filters: Mapping[str, Sequence[str]]
    spans: Sequence[Span]
    through: Mapping[int, int] | None = None


def plan_spans(meter: Meter, series: Series, query: SpanQuery) -> Statement:
    """A statement that answers (index of the span, value) for each span that has a value.

    Spans may overlap. Those that follow one another without overlap, as the phases of an
    additive balance do, are told apart by one look-up an event.
    """
    bind = Binder()
    starts = [to_micros(start) for start, _ in query.spans]
    ends = [to_micros(end) for _, end in query.spans]
    source = sql.points_of(series, _meter_query(meter, query), bind, meter)
    micros = "toUnixTimestamp64Micro(time)"
    listed = f"{bind(starts, 'Array(Int64)')} AS starts, {bind(ends, 'Array(Int64)')} AS ends"
    if all(end <= start for end, start in zip(ends, starts[1:], strict=False)):
        place = f"arrayLastIndex(s -> s <= {micros}, starts)"
        if len(starts) > 8:
            # A binary search and a look-up in a hash table, however many spans there are.
            start = f"roundDown({micros}, starts)"
            place = f"transform({start}, starts, arrayEnumerate(starts), toUInt32(0))"
        inside = f"{micros} >= starts[1] AND {micros} < ends[i]"
        rows = f"SELECT *, {place} AS i FROM {source}"
    else:
        inside = f"{micros} >= starts[i] AND {micros} < ends[i]"
        rows = f"SELECT *, i FROM (SELECT * FROM {source}) ARRAY JOIN arrayEnumerate(starts) AS i"
    value = sql.value_of_points(meter)
    return Statement(
        f"WITH {listed} SELECT i - 1, {value} FROM ({rows})"
        f" WHERE {inside}{_through(query)} GROUP BY i",
        bind.params,
    )


def plan_instants(meter: Meter, series: Series, query: SpanQuery) -> Statement:
    """A statement that answers (microseconds since 1970, value) for each instant of one span."""
    bind = Binder()
    source = sql.points_of(series, _meter_query(meter, query), bind, meter)
    return Statement(
        f"SELECT toUnixTimestamp64Micro(time) AS t, {sql.value_of_points(meter)}"
        f" FROM (SELECT * FROM {source}) WHERE 1{_through(query)}"
        " GROUP BY t ORDER BY t",
        bind.params,
    )


def read_spans(rows: Sequence[tuple[int, Decimal | int]], count: int) -> list[Decimal | None]:
    """The value of each of `count` spans; None where it has none."""
    values: list[Decimal | None] = [None] * count
    for index, value in rows:
        values[index] = Decimal(value)
    return values


def _through(query: SpanQuery) -> str:
    return "".join(
        f" AND (part != {part} OR off <= {offset})"
        for part, offset in sorted((query.through or {}).items())
    )


def _meter_query(meter: Meter, query: SpanQuery) -> MeterQuery:
    begin = min(start for start, _ in query.spans)
    if meter.event_from is not None:
        begin = max(begin, meter.event_from)
    return MeterQuery(
        range=TimeRange(begin, max(end for _, end in query.spans)),
        since=begin,
        subjects=(query.subject,),
        filters=tuple(
            (key, Membership(tuple(texts), negated=False)) for key, texts in query.filters.items()
        ),
    )
