"""The rows of the event store, as SQL. Pure: text and parameters, no I/O.

A plan's records are loaded into a staging table of their partition, and every table is filled from
there by one statement each, so that no Python loop runs over events.

Inserts that carry a deduplication token have an ORDER BY, that of their table: the engine makes
of the token one for each block that the SELECT gives, and without an order those are the blocks of
the scratch table, which need not be the same the second time.

Events are sorted when they are staged, once and as one block: then the engine finds the events in
order, and the points nearly so. Merging blocks of such wide rows costs more than sorting one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from aggregator.binding import Binder
from aggregator.scratch import FAULT_COLUMNS, POINT_COLUMNS, Lease, Scratch
from aggregator.series import Series
from meterline.kernel import quantity
from meterline.kernel.jsonpath import parse_path

LOAD_SETTINGS: dict[str, str | int] = {
    "async_insert": 0,
    "input_format_parallel_parsing": 0,
    "input_format_json_named_tuples_as_objects": 1,
    "input_format_json_defaults_for_missing_elements_in_named_tuple": 1,
    "input_format_json_ignore_unknown_keys_in_named_tuple": 1,
    "input_format_json_read_objects_as_strings": 1,
    "input_format_try_infer_dates": 0,
    "input_format_try_infer_datetimes": 0,
}

ONE_BLOCK: dict[str, str | int] = {
    "async_insert": 0,
    "max_threads": 1,
    "max_block_size": 100_000_000,
    "max_insert_threads": 1,
    "max_insert_block_size": 100_000_000,
    "min_insert_block_size_rows": 100_000_000,
    "min_insert_block_size_bytes": 16 << 30,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
}
"""One block an insert: a deduplication token then stands for all of it."""

# A number that the engine's JSON functions, which pass through a double, could change, or that
# they would spell in another way than `kernel.quantity`: 16 or more digits around a point, an
# exponent, 20 or more digits, tiny fractions, minus zero, or digits hidden behind \u escapes.
# Wrong positives only cost time: such events are read exactly, in Python.
INEXACT_PATTERN = (
    r"\.[0-9]{9}|[0-9]{8}\.[0-9]{5}|[0-9]{12}\.[0-9]|\.0000|[0-9]{20}"
    r'|[:,\["\s][-+]?[0-9]*\.?[0-9]*[eE][-+]?[0-9]+["\s,}\]]'
    r"|[:,\[\s]-0|\\u00[2-6]"
)


DUPLICATE = 1
"""Verdict: an event with this key and content was stored before; it is dropped."""
CONFLICT = 2
"""Verdict: an event with this key and other content was stored before; kept, not counted."""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with its bound parameters."""

    sql: str
    params: dict[str, Any] = field(default_factory=dict)


def stage_events(scratch: Scratch, first: int, last: int) -> str:
    """Spread the loaded records into one row per event, with its key, content and flags.

    A log that gives every event an offset may cut records differently each time it is read, so
    events outside of the plan are left out here.
    """
    time = "parseDateTime64BestEffortOrNull(ev.time, 6, 'UTC')"
    return f"""
INSERT INTO {scratch.events}
SELECT {scratch.part}, place, number, ns, ev.id, ev.source, ev.type, ev.subject,
    ifNull({time}, toDateTime64(fromUnixTimestamp64Milli(moment, 'UTC'), 6, 'UTC')) AS instant,
    ev.time != '' AS given, ev.datacontenttype,
    if(ev._raw = '', ev.data, ev._raw) AS payload, ev.data_base64, ev._ext,
    fromUnixTimestamp64Milli(moment, 'UTC'),
    reinterpretAsUInt128(sipHash128(ns, ev.source, ev.id)),
    sipHash64(ev.type, ev.subject, if(given, toUnixTimestamp64Micro(instant), 0),
              ev.datacontenttype, payload, ev.data_base64, ev._ext),
    match(payload, {{inexact:String}})
FROM {scratch.records}
ARRAY JOIN e AS ev,
    if(empty(offs), arrayEnumerate(e), arrayWithConstant(length(e), toUInt32(1))) AS number,
    arrayResize(offs, length(e), off) AS place,
    arrayResize(ats, length(e), at) AS moment
WHERE place BETWEEN {first} AND {last}
ORDER BY ns, ev.type, ev.subject, instant, place, number"""


class Reads:
    """The JSON reads that expressions over `data` need, each named once.

    ClickHouse does not share equal expressions inside an array of tuples, so they are columns of
    an inner SELECT (`columns`), and the outer expressions use their names.
    """

    def __init__(self, bind: Binder) -> None:
        self._bind = bind
        self._names: dict[str, str] = {}

    def value(self, series: Series) -> tuple[str, str]:
        """The (value, text) of an event for a series; the value is NULL where there is none."""
        if series.kind == "count":
            return "toNullable(toDecimal128(1, 18))", "''"
        assert series.value_path is not None
        args = self._steps(series.value_path)
        found = self._name(f"JSONExtractString(data{args})")
        if series.kind == "number":
            return self._name(f"toDecimal128OrNull({found}, 18)"), "''"
        scalar = self._name(f"JSONType(data{args}) NOT IN ('Object', 'Array', 'Null')")
        usable = self._name(f"JSONHas(data{args}) AND {scalar}")
        return f"if({usable}, toNullable(toDecimal128(0, 18)), NULL)", found

    def dims(self, series: Series) -> str:
        """The array of a series' dimensions, in the order of its group paths; '' where missing."""
        parts = []
        for path in series.group_paths:
            args = self._steps(path)
            text = self._name(f"JSONExtractString(data{args})")
            nested = f"JSONType(data{args}) IN ('Object', 'Array')"
            parts.append(
                self._name(f"if(substring({text}, 1, 1) IN ('{{', '[') AND {nested}, '', {text})")
            )
        return f"[{', '.join(parts)}]" if parts else "emptyArrayString()"

    @property
    def columns(self) -> str:
        """The reads as columns of a SELECT over a table with `data`; each may use those before."""
        return "".join(f", {expression} AS {name}" for expression, name in self._names.items())

    def _name(self, expression: str) -> str:
        return self._names.setdefault(expression, f"x{len(self._names)}")

    def _steps(self, path: str) -> str:
        return steps_sql(path, self._bind)


def steps_sql(path: str, bind: Binder) -> str:
    """A JSON path as further arguments of a JSON function; the engine's indexes are 1-based."""
    args = ""
    for step in parse_path(path).steps:
        if isinstance(step, int):
            # Of an object the engine would take the n-th member; there is no index 0.
            args += f", if(JSONType(data{args}) = 'Array', {step + 1}, 0)"
        else:
            args += f", {bind(step)}"
    return args


@dataclass(frozen=True, slots=True)
class Missing:
    """Offsets `first` to `last` may be in the tables already: insert what is missing."""

    first: int
    last: int

    def of(self, table: str, part: int, columns: str) -> str:
        """The condition on a row, by the columns that tell it from others."""
        return (
            f"({columns}) NOT IN (SELECT {columns} FROM {table}"
            f" WHERE part = {part} AND off BETWEEN {self.first} AND {self.last})"
        )


def insert_events(scratch: Scratch, verdicts: bool, missing: Missing | None = None) -> str:
    """Counted events and conflicts; duplicates are left out."""
    status = _places(scratch, CONFLICT) if verdicts else "0"
    return f"""
INSERT INTO events (ns, part, off, idx, status, inexact, id, source, type, subject, time,
    time_given, datacontenttype, data, data_base64, ext, ingested_at, stored_at)
SELECT ns, part, off, idx, {status}, inexact, id, source, type, subject, time,
    time_given, datacontenttype, data, data_base64, ext, ingested_at,
    fromUnixTimestamp64Milli({{stored_at:Int64}}, 'UTC')
FROM {scratch.events}{_stored_where(scratch, "events", verdicts, missing)}
ORDER BY ns, type, subject, time"""


def insert_keys(scratch: Scratch, verdicts: bool, missing: Missing | None = None) -> str:
    """The keys of what `insert_events` stored."""
    return f"""
INSERT INTO keys (h, content, part, off, idx)
SELECT h, content, part, off, idx
FROM {scratch.events}{_stored_where(scratch, "keys", verdicts, missing)}
ORDER BY h"""


def _stored_where(scratch: Scratch, table: str, verdicts: bool, missing: Missing | None) -> str:
    conditions = [f"NOT ({_places(scratch, DUPLICATE)})"] if verdicts else []
    if missing:
        conditions.append(missing.of(table, scratch.part, "off, idx"))
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def stage_points(scratch: Scratch, series: Sequence[Series], verdicts: bool) -> Statement:
    """Read the values of counted events, for every series.

    Events that must be read exactly are left out. Values that cannot be used are NULL.
    """
    bind = Binder()
    counted = counted_sql(scratch, verdicts)
    selects = [
        _select_cells(scratch.events, group, bind, _of_type(key, bind) + counted)
        for key, group in _by_type(series)
    ]
    columns = ", ".join(POINT_COLUMNS)
    sql = f"INSERT INTO {scratch.points} ({columns})\n" + "\nUNION ALL\n".join(selects)
    return Statement(sql, bind.params)


def insert_points(scratch: Scratch, missing: Missing | None = None) -> str:
    """The staged points."""
    also = f" AND {missing.of('points', scratch.part, 'series, off, idx')}" if missing else ""
    return (
        f"{_INSERT_POINTS}\nSELECT series, subject, time, part, off, idx, exact,"
        f" assumeNotNull(value), text, dims FROM {scratch.points} WHERE value IS NOT NULL{also}"
        "\nORDER BY series, subject, time"
    )


def insert_faults(
    scratch: Scratch, series: Sequence[Series], missing: Missing | None = None
) -> list[Statement]:
    """Which events a series could not use, and why."""
    return [
        _insert_faults(scratch, some, missing, exact=number == 0)
        for number, some in enumerate(in_statements(series))
    ]


def _insert_faults(
    scratch: Scratch, series: Sequence[Series], missing: Missing | None, *, exact: bool
) -> Statement:
    bind = Binder()
    selects = [
        f"SELECT series, part, off, idx, exact, reason FROM {scratch.points}"
        f" WHERE value IS NULL AND exact = 1 AND {int(exact)}"
    ]
    for one in series:
        if one.kind != "count":
            where = (
                f"(off, idx) IN (SELECT off, idx FROM {scratch.points}"
                f" WHERE series = {one.id} AND value IS NULL AND exact = 0)"
            )
            selects.append(_select_faults(scratch.events, one, bind, where))
    where = f" WHERE {missing.of('faults', scratch.part, 'series, off, idx')}" if missing else ""
    union = "\nUNION ALL\n".join(selects)
    return Statement(
        f"{_INSERT_FAULTS}\nSELECT {', '.join(FAULT_COLUMNS)} FROM ({union})"
        f"{where}\nORDER BY series, part, off, idx",
        bind.params,
    )


def in_statements(series: Sequence[Series]) -> list[Sequence[Series]]:
    """The series in as many parts as there should be statements: a server limits their length."""
    ordered = sorted(series, key=lambda one: (one.namespace, one.event_type, one.id))
    return [
        ordered[at : at + _SERIES_A_STATEMENT] for at in range(0, len(ordered), _SERIES_A_STATEMENT)
    ]


def settled_events(scratch: Scratch, verdicts: bool) -> str:
    """Namespace and id of the events from one source that count."""
    return (
        f"SELECT ns, id FROM {scratch.events} WHERE source = {{source:String}}"
        f"{counted_sql(scratch, verdicts)} ORDER BY ns, id"
    )


def backfill_points(series: Series, part: int, after: int, through: int, lease: Lease) -> Statement:
    """The points of stored events at offsets in (after, through], inexact ones left out."""
    bind = Binder()
    where = _stored(series, bind, part, after, through)
    select = _select_cells("events", [series], bind, where)
    leads = _leads(lease.points)
    return Statement(f"{_INSERT_POINTS}\n{select} WHERE s.2 IS NOT NULL AND {leads}", bind.params)


def backfill_faults(series: Series, part: int, after: int, through: int, lease: Lease) -> Statement:
    """The faults of stored events at offsets in (after, through], inexact ones left out."""
    bind = Binder()
    where = _stored(series, bind, part, after, through)
    select = _select_faults("events", series, bind, where)
    return Statement(f"{_INSERT_FAULTS}\n{select} AND {_leads(lease.faults)}", bind.params)


def insert_leased(table: str, leased: str, columns: Sequence[str], count: int) -> str:
    """Move rows out of a leader's scratch table; an error unless there are as many as said."""
    listed = ", ".join(columns)
    whole = f"(SELECT throwIf(count() != {count}) FROM {leased}) = 0"
    return f"INSERT INTO {table} ({listed})\nSELECT {listed} FROM {leased} WHERE {whole}"


def _leads(table: str) -> str:
    # Always true; but once another process leads, the table is gone and the statement fails.
    return f"(SELECT count() FROM {table}) >= 0"


def totals_of_points(where: str) -> str:
    """A SELECT that gives the totals of points, as the materialized view does for new ones."""
    micros = "toUnixTimestamp64Micro(time)"
    return (
        "SELECT series, toDateTime64(fromUnixTimestamp64Second(intDiv("
        f"{micros} - positiveModulo({micros}, 60000000), 1000000)), 0, 'UTC') AS minute,"
        " sum(toDecimal256(value, 18)), count(), min(value), max(value)"
        f" FROM points WHERE {where} GROUP BY series, minute"
    )


_SERIES_A_STATEMENT = 200
_INSERT_POINTS = f"INSERT INTO points ({', '.join(POINT_COLUMNS)})"
_INSERT_FAULTS = f"INSERT INTO faults ({', '.join(FAULT_COLUMNS)})"


def _of_type(key: tuple[str, str], bind: Binder) -> str:
    return f"ns = {bind(key[0])} AND type = {bind(key[1])} AND inexact = 0"


def counted_sql(scratch: Scratch, verdicts: bool) -> str:
    """A condition, to be added, that leaves out duplicates and conflicts."""
    return f" AND NOT ({_places(scratch, DUPLICATE, CONFLICT)})" if verdicts else ""


def _stored(series: Series, bind: Binder, part: int, after: int, through: int) -> str:
    of_type = _of_type((series.namespace, series.event_type), bind)
    return f"{of_type} AND status = 0 AND part = {part} AND off > {after} AND off <= {through}"


def _select_cells(table: str, group: Sequence[Series], bind: Binder, where: str) -> str:
    """All points of one event type in one pass, so that each JSON path is read once an event."""
    reads = Reads(bind)
    cells = []
    for one in group:
        value, text = reads.value(one)
        cells.append(f"(toUInt32({one.id}), {value}, {text}, {reads.dims(one)})")
    return (
        "SELECT s.1, subject, time, part, off, idx, 0, s.2, s.3, s.4"
        f" FROM (SELECT subject, time, part, off, idx{reads.columns} FROM {table} WHERE {where})"
        f" ARRAY JOIN [{', '.join(cells)}] AS s"
    )


_NOT_USABLE = {"number": quantity.NOT_DECIMAL, "text": quantity.NOT_TEXT}


def _select_faults(table: str, series: Series, bind: Binder, where: str) -> str:
    """Which events a series cannot use, with the reasons that `kernel.quantity` gives."""
    assert series.value_path is not None
    reads = Reads(bind)
    value, _ = reads.value(series)
    args = steps_sql(series.value_path, bind)
    found = f"JSONExtractString(data{args})"
    return (
        f"SELECT toUInt32({series.id}), part, off, idx, 0, multiIf("
        f"data IN ('', 'null'), {bind(quantity.MISSING_DATA)},"
        f" NOT JSONHas(data{args}), {bind(quantity.missing_value(series.value_path))},"
        f" JSONType(data{args}) = 'Null', {bind(quantity.IS_NULL)},"
        f" match({found}, '^[-+]?(?i:nan|inf|infinity)$'), {bind(quantity.NOT_FINITE)},"
        f" match({found}, '^[-+]?([0-9]+[.]?[0-9]*|[.][0-9]+)$'), {bind(quantity.OUT_OF_RANGE)},"
        f" {bind(_NOT_USABLE[series.kind])})"
        f" FROM (SELECT part, off, idx, data{reads.columns} FROM {table} WHERE {where})"
        f" WHERE ({value}) IS NULL"
    )


def _places(scratch: Scratch, *verdicts: int) -> str:
    wanted = ", ".join(map(str, verdicts))
    return f"(off, idx) IN (SELECT off, idx FROM {scratch.verdicts} WHERE verdict IN ({wanted}))"


def _by_type(series: Iterable[Series]) -> Iterable[tuple[tuple[str, str], list[Series]]]:
    ordered = sorted(series, key=lambda one: (one.namespace, one.event_type, one.id))
    for key, group in groupby(ordered, key=lambda one: (one.namespace, one.event_type)):
        yield key, list(group)
