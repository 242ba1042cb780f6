"""Which way leads to an answer, and that no text of a caller becomes part of a statement."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from aggregator.cut import EvenCut, ListedCut, make_cut, needs_data_range, on_whole_minutes
from aggregator.filters import Comparison, Either, Every, Membership
from aggregator.query import MeterQuery, QueryLimits, TimeRange
from aggregator.rows import Statement
from aggregator.series import Series, series_key
from aggregator.sql import data_range, list_subjects, list_values, plan_query
from meterline.kernel.errors import ValidationError
from meterline.kernel.meters import Aggregation, Meter
from meterline.kernel.windows import WindowSize
from tests.support.usage import meter

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
MARCH = TimeRange(BEGIN, datetime(2026, 4, 1, tzinfo=UTC))
BUDAPEST = ZoneInfo("Europe/Budapest")
HOSTILE = "x'; DROP TABLE events; -- {p0:String} \\' \n\t\x01`\""
METER = meter("tokens", model="$.model", odd="$['it\\'s; --']")


def series_of(one: Meter, *, gap: bool = False) -> Series:
    live: dict[int, int] = {0: 10} if gap else {}
    return Series(7, series_key(one), "backfilling" if gap else "ready", live, {})


def statement(query: MeterQuery, one: Meter = METER, *, gap: bool = False) -> Statement:
    cut = make_cut(query, MARCH, QueryLimits())
    totals = on_whole_minutes(query, MARCH)
    return plan_query(one, series_of(one, gap=gap), query, cut, totals, 100).statement


def query(span: TimeRange = MARCH, **changes: Any) -> MeterQuery:
    return MeterQuery(range=span, since=span.begin, **changes)


@pytest.mark.parametrize("kind", [Aggregation.SUM, Aggregation.COUNT, Aggregation.AVG])
@pytest.mark.parametrize("window", [None, *WindowSize])
def test_all_subjects_are_read_from_totals(kind: Aggregation, window: WindowSize | None) -> None:
    sql = statement(query(window=window, tz=BUDAPEST), meter("m", kind)).sql
    assert "FROM totals" in sql
    assert "FROM points" not in sql


@pytest.mark.parametrize(
    "changes",
    [
        {"by_subject": True},
        {"subjects": ("a",), "by_subject": True},
        {"group_by": ("model",)},
        {"filters": (("model", Comparison("$eq", "x")),)},
    ],
)
def test_groups_and_filters_are_read_from_points(changes: dict[str, Any]) -> None:
    assert "FROM totals" not in statement(query(**changes)).sql


@pytest.mark.parametrize("kind", [Aggregation.LATEST, Aggregation.UNIQUE_COUNT])
def test_some_aggregations_need_points(kind: Aggregation) -> None:
    assert "FROM totals" not in statement(query(), meter("m", kind)).sql


def test_offsets_with_seconds_need_points() -> None:
    # Liberia was 44 minutes and 30 seconds behind until 1972.
    span = TimeRange(datetime(1971, 5, 1, tzinfo=UTC), datetime(1971, 6, 1, tzinfo=UTC))
    monrovia = query(span, window=WindowSize.DAY, tz=ZoneInfo("Africa/Monrovia"))
    assert not on_whole_minutes(monrovia, span)
    assert on_whole_minutes(query(window=WindowSize.DAY, tz=monrovia.tz), MARCH)


def test_ragged_ends_are_read_from_points() -> None:
    second = timedelta(seconds=1)
    for span, reads in (
        (TimeRange(BEGIN + second, MARCH.end), 1),
        (TimeRange(BEGIN, BEGIN + timedelta(minutes=5) + second), 1),
        (TimeRange(BEGIN + second, BEGIN + timedelta(minutes=5) + second), 2),
    ):
        sql = statement(query(span)).sql
        assert sql.count("FROM totals") == 1
        assert sql.count("FROM points") == reads
    inside_a_minute = TimeRange(BEGIN + second, BEGIN + 2 * second)
    assert "FROM totals" not in statement(query(inside_a_minute)).sql


def test_a_back_fill_reads_events_for_what_is_missing() -> None:
    sql = statement(query(), gap=True).sql
    assert "FROM events" in sql
    assert "FROM totals" not in sql


def test_windows_are_counted_when_even_and_listed_when_not() -> None:
    limits = QueryLimits()
    assert isinstance(make_cut(query(window=WindowSize.HOUR, tz=BUDAPEST), MARCH, limits), EvenCut)
    days = make_cut(query(window=WindowSize.DAY, tz=BUDAPEST), MARCH, limits)
    assert isinstance(days, ListedCut)  # the clocks change on 29 March
    assert len(days.starts) == 32
    assert isinstance(make_cut(query(window=WindowSize.DAY), MARCH, limits), EvenCut)
    with pytest.raises(ValidationError):
        make_cut(query(window=WindowSize.DAY, tz=BUDAPEST), MARCH, QueryLimits(max_windows=31))


def test_when_the_range_of_the_data_is_needed() -> None:
    assert not needs_data_range(MeterQuery(window=WindowSize.DAY))
    assert needs_data_range(MeterQuery(window=WindowSize.MONTH))
    assert needs_data_range(MeterQuery(window=WindowSize.DAY, tz=BUDAPEST))
    assert not needs_data_range(query(window=WindowSize.DAY, tz=BUDAPEST))


@pytest.mark.parametrize("gap", [False, True])
def test_texts_are_bound_never_spliced(gap: bool) -> None:
    path = "$['x\\';--']"
    hostile = replace(METER, namespace=HOSTILE, event_type=HOSTILE, value_property=path)
    series = series_of(hostile, gap=gap)
    filters = Every(
        (
            Comparison("$eq", HOSTILE),
            Comparison("$like", HOSTILE),
            Either((Membership((HOSTILE, "b")), Membership((HOSTILE,), negated=True))),
        )
    )
    everything = query(
        window=WindowSize.DAY,
        subjects=(HOSTILE, "b"),
        by_subject=True,
        group_by=("odd", "model"),
        filters=(("odd", filters),),
    )
    cut = make_cut(everything, MARCH, QueryLimits())
    for one in (
        plan_query(hostile, series, everything, cut, False, 10).statement,
        data_range(hostile, series, everything),
        list_subjects(hostile, series, MARCH, 10),
        list_values(hostile, series, "odd", MARCH, 10),
    ):
        for word in ("DROP", ";", "it's", "\\", "`", '"'):
            assert word not in one.sql
