"""A meter query as ClickHouse SQL. Pure: text and bound parameters, no I/O.

Two ways lead to an answer. `points` has a row per event and serves every query. `totals` has sums
per UTC minute over all subjects; it serves the whole minutes of a query that neither groups nor
filters, and `points` then gives only the ragged ends. While a series is back-filled, what is not
in `points` yet is read from `events`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from aggregator.binding import Binder
from aggregator.cut import Cut
from aggregator.filters import Comparison, Either, Every, Filter, Membership
from aggregator.query import MeterQuery, QueryRow, TimeRange, utc_floor
from aggregator.rows import Reads, Statement
from aggregator.series import Series
from meterline.kernel.instants import from_micros, to_micros
from meterline.kernel.meters import Aggregation, Meter
from meterline.kernel.quantity import average
from meterline.kernel.windows import window_end

_MINUTE = timedelta(minutes=1)

# Values of `points`, and the same of `totals` joined with single points: (t, s, c, lo, hi).
_OF_POINTS = {
    Aggregation.SUM: ("sum(toDecimal256(value, 18))",),
    Aggregation.COUNT: ("count()",),
    Aggregation.AVG: ("sum(toDecimal256(value, 18))", "count()"),
    Aggregation.MIN: ("min(value)",),
    Aggregation.MAX: ("max(value)",),
    Aggregation.UNIQUE_COUNT: ("uniqExact(text)",),
    Aggregation.LATEST: ("argMax(value, (time, part, off, idx))",),
}
_OF_TOTALS = {
    Aggregation.SUM: ("sum(s)",),
    Aggregation.COUNT: ("sum(c)",),
    Aggregation.AVG: ("sum(s)", "sum(c)"),
    Aggregation.MIN: ("min(lo)",),
    Aggregation.MAX: ("max(hi)",),
}
_COMPARISONS = {
    "$eq": "{0} = {1}",
    "$ne": "{0} != {1}",
    "$gt": "{0} > {1}",
    "$gte": "{0} >= {1}",
    "$lt": "{0} < {1}",
    "$lte": "{0} <= {1}",
    "$like": "{0} LIKE {1}",
    "$nlike": "{0} NOT LIKE {1}",
    "$ilike": "{0} ILIKE {1}",
    "$nilike": "{0} NOT ILIKE {1}",
}


def value_of_points(meter: Meter) -> str:
    """The aggregate over points whose one value is the meter's; not for AVG."""
    (value,) = _OF_POINTS[meter.aggregation]
    return value


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement and how its rows become an answer's."""

    statement: Statement
    meter: Meter
    query: MeterQuery

    def row(self, cells: Sequence[Any], ends: dict[datetime, datetime]) -> QueryRow:
        """One row of the answer; `ends` remembers windows between the calls."""
        query = self.query
        place = 0
        if query.window is not None:
            start = from_micros(cells[0])
            if start not in ends:
                ends[start] = window_end(start, query.window, query.tz)
            end, place = ends[start], 1
        else:
            start = query.range.begin or utc_floor(from_micros(cells[0]))
            end = query.range.end or utc_floor(from_micros(cells[1])) + _MINUTE
            place = 2
        subject = None
        if query.by_subject:
            subject, place = cells[place], place + 1
        values_at = place + len(query.group_by)
        groups = dict(zip(query.group_by, cells[place:values_at], strict=True))
        return QueryRow(start, end, subject, groups, self._value(cells[values_at:]))

    def _value(self, cells: Sequence[Any]) -> Decimal:
        if self.meter.aggregation is Aggregation.AVG:
            return average(cells[0], cells[1])
        return Decimal(cells[0])


def plan_query(
    meter: Meter, series: Series, query: MeterQuery, cut: Cut | None, totals: bool, limit: int
) -> Plan:
    """The plan of a query; `totals` says whether windows allow for sums per minute.

    The statement answers at most `limit` rows, in the answer's order.
    """
    bind = Binder()
    if totals and _fits_totals(meter, series, query):
        micros, source, values = "t", _totals(series, query, bind), _OF_TOTALS
    else:
        micros, source, values = _TIME, points_of(series, query, bind, meter), _OF_POINTS
    keys = [] if cut is None else [cut.start_sql(micros, bind)]
    keys += ["subject"] if query.by_subject else []
    keys += [_dim(meter, series, key) for key in query.group_by]
    names = [f"k{index}" for index in range(len(keys))]
    columns = [f"{key} AS {name}" for key, name in zip(keys, names, strict=True)]
    if cut is None:
        columns = [f"min({micros})", f"max({micros})", *columns]
    columns += values[meter.aggregation]
    grouped = f" GROUP BY {', '.join(names)} ORDER BY {', '.join(names)}" if names else ""
    having = "" if names else " HAVING count() > 0"
    sql = f"SELECT {', '.join(columns)} FROM {source}{grouped}{having} LIMIT {limit}"
    return Plan(Statement(sql, bind.params), meter, query)


def data_range(meter: Meter, series: Series, query: MeterQuery) -> Statement:
    """From when to when there is data for a query, or more; a third column counts it.

    Microseconds since 1970; of `totals` the starts of the first and the last minute.
    """
    bind = Binder()
    if series.gaps:
        times, source = _TIME, points_of(series, query, bind, meter)
    else:
        times, source = (
            f"toUnixTimestamp64Second(minute) * {_MILLION}",
            f"totals WHERE {_id(series)}",
        )
    return Statement(f"SELECT min({times}), max({times}), count() FROM {source}", bind.params)


def list_subjects(meter: Meter, series: Series, span: TimeRange, limit: int) -> Statement:
    """The distinct subjects with points in a range."""
    bind = Binder()
    source = points_of(series, MeterQuery(span, span.begin), bind, meter)
    sql = f"SELECT DISTINCT subject FROM {source} ORDER BY subject LIMIT {limit}"
    return Statement(sql, bind.params)


def list_values(meter: Meter, series: Series, key: str, span: TimeRange, limit: int) -> Statement:
    """The distinct texts of a groupBy key in a range, the empty one left out."""
    bind = Binder()
    source = points_of(series, MeterQuery(span, span.begin), bind, meter)
    sql = f"SELECT DISTINCT {_dim(meter, series, key)} AS k FROM {source}"
    return Statement(f"SELECT k FROM ({sql}) WHERE k != '' ORDER BY k LIMIT {limit}", bind.params)


_MILLION = 1_000_000
_TIME = "toUnixTimestamp64Micro(time)"


def _id(series: Series) -> str:
    return f"series = {series.id}"


def _instant(t: datetime, bind: Binder) -> str:
    return f"fromUnixTimestamp64Micro({bind(to_micros(t), 'Int64')}, 'UTC')"


def _dim(meter: Meter, series: Series, key: str) -> str:
    return f"dims[{series.group_paths.index(meter.group_by[key]) + 1}]"


def _fits_totals(meter: Meter, series: Series, query: MeterQuery) -> bool:
    return (
        series.state == "ready"
        and meter.aggregation in _OF_TOTALS
        and not (query.by_subject or query.group_by or query.filters)
    )


def _between(column: str, begin: datetime | None, end: datetime | None, bind: Binder) -> list[str]:
    conditions = []
    if begin is not None:
        conditions.append(f"{column} >= {_instant(begin, bind)}")
    if end is not None:
        conditions.append(f"{column} < {_instant(end, bind)}")
    return conditions


def _totals(series: Series, query: MeterQuery, bind: Binder) -> str:
    """The source of a query over sums per minute, with single points at the ragged ends."""
    begin, end = query.since, query.range.end
    first = begin if begin is None or utc_floor(begin) == begin else utc_floor(begin) + _MINUTE
    last = end if end is None else utc_floor(end)
    if first is not None and last is not None and first >= last:
        # Not one whole minute: all of the range is one ragged end.
        first = last = None
        edges = [_between("time", begin, end, bind)]
        parts = []
    else:
        edges = [_between("time", begin, first, bind)] if first != begin else []
        edges += [_between("time", last, end, bind)] if last != end else []
        inner = " AND ".join([_id(series), *_between("minute", first, last, bind)])
        parts = [
            f"SELECT toUnixTimestamp64Second(minute) * {_MILLION} AS t, sum AS s, count AS c,"
            f" min AS lo, max AS hi FROM totals WHERE {inner}"
        ]
    parts += [
        f"SELECT {_TIME} AS t, toDecimal256(value, 18) AS s, toUInt64(1) AS c, value AS lo,"
        f" value AS hi FROM points WHERE {' AND '.join([_id(series), *edge])}"
        for edge in edges
    ]
    return f"({' UNION ALL '.join(parts)})"


def points_of(series: Series, query: MeterQuery, bind: Binder, meter: Meter) -> str:
    """The source of a query over single events, as table and WHERE."""
    conditions = _between("time", query.since, query.range.end, bind)
    if query.subjects:
        one = len(query.subjects) == 1
        conditions.append(
            f"subject = {bind(query.subjects[0])}"
            if one
            else f"subject IN {bind(list(query.subjects), 'Array(String)')}"
        )
    filters = [_filter(_dim(meter, series, key), one, bind) for key, one in query.filters]
    if not series.gaps:
        return f"points WHERE {' AND '.join([_id(series), *conditions, *filters])}"
    where = f" WHERE {' AND '.join(filters)}" if filters else ""
    return f"({_with_gaps(series, conditions, bind)}){where}"


_COLUMNS = "subject, time, part, off, idx"


def _with_gaps(series: Series, conditions: Sequence[str], bind: Binder) -> str:
    """Points, and for the offsets that are not back-filled what the stored events give.

    The gaps are those of one moment, and the back-fill goes on while the query runs: so points at
    these offsets are left out, but for those read exactly, which only `points` can serve.
    """
    gap = " OR ".join(
        f"(part = {part} AND off > {after} AND off < {before})"
        for part, after, before in series.gaps
    )
    of_type = f"ns = {bind(series.namespace)} AND type = {bind(series.event_type)}"
    reads = Reads(bind)
    value, text = reads.value(series)
    dims = reads.dims(series)
    own = " AND ".join([_id(series), *conditions])
    stored = " AND ".join([of_type, "status = 0", "inexact = 0", f"({gap})", *conditions])
    return (
        f"SELECT {_COLUMNS}, value, text, dims FROM points"
        f" WHERE {own} AND (exact = 1 OR NOT ({gap}))"
        f" UNION ALL SELECT {_COLUMNS}, assumeNotNull(v), x, d FROM"
        f" (SELECT {_COLUMNS}, {value} AS v, {text} AS x, {dims} AS d FROM"
        f" (SELECT {_COLUMNS}{reads.columns} FROM events WHERE {stored})) WHERE v IS NOT NULL"
    )


def _filter(column: str, condition: Filter, bind: Binder) -> str:
    match condition:
        case Comparison(operator, operand):
            return _COMPARISONS[operator].format(column, bind(operand))
        case Membership(values, negated):
            listed = bind(list(values), "Array(String)")
            return f"{column} {'NOT IN' if negated else 'IN'} {listed}"
        case Every(parts):
            return f"({' AND '.join(_filter(column, part, bind) for part in parts)})"
        case Either(parts):
            return f"({' OR '.join(_filter(column, part, bind) for part in parts)})"
