from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from dateutil.relativedelta import relativedelta
from dateutil.tz import resolve_imaginary
from hypothesis import given, settings
from hypothesis import strategies as st

from meterline.kernel.errors import ValidationError
from meterline.kernel.periods import (
    NEVER,
    Interval,
    Period,
    Recurrence,
    format_interval,
    interval_name,
    parse_interval,
    shift,
)

ZONES = [
    "UTC",
    "Europe/Budapest",
    "America/Los_Angeles",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Sao_Paulo",
]
MONTH = parse_interval("MONTH")
DAY = parse_interval("DAY")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


anchors = st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
intervals = st.one_of(
    st.sampled_from([DAY, MONTH, parse_interval("WEEK"), parse_interval("YEAR")]),
    st.builds(
        Interval,
        st.integers(0, 30),
        st.integers(0, 40),
        st.integers(1, 10**6).map(lambda n: timedelta(seconds=n)),
    ),
    st.builds(Interval, st.integers(1, 30)),
)
zones = st.none() | st.sampled_from(ZONES).map(ZoneInfo)


@settings(max_examples=3000, deadline=None)
@given(anchors, intervals, st.integers(-200, 200), zones)
def test_every_occurrence_is_the_one_of_dateutil(
    anchor: datetime, interval: Interval, n: int, zone: ZoneInfo | None
) -> None:
    local = anchor.astimezone(zone or UTC)
    step = relativedelta(months=interval.months * n, days=interval.days * n)
    expected = resolve_imaginary((local + step).replace(fold=0)).astimezone(UTC)
    if n == 0:
        expected = anchor
    assert Recurrence(anchor, interval, zone).occurrence(n) == expected + interval.time * n


@settings(max_examples=1000, deadline=None)
@given(anchors, intervals, anchors, zones)
def test_every_instant_is_in_its_period(
    anchor: datetime, interval: Interval, t: datetime, zone: ZoneInfo | None
) -> None:
    recurrence = Recurrence(anchor, interval, zone)
    period = recurrence.period(t)
    assert t in period
    assert recurrence.period(period.start) == period
    assert recurrence.period(period.end).start == period.end
    assert recurrence.period(period.start - timedelta(microseconds=1)).end == period.start


@settings(deadline=None)
@given(anchors, intervals, anchors, st.integers(0, 400), zones)
def test_occurrences_between_are_those_inside_without_the_start(
    anchor: datetime, interval: Interval, after: datetime, days: int, zone: ZoneInfo | None
) -> None:
    recurrence = Recurrence(anchor, interval, zone)
    until = after + min(timedelta(days=days), 50 * interval.mean)
    found = list(recurrence.between(after, until))
    assert all(a < b for a, b in pairwise([after, *found]))
    assert all(t <= until for t in found)
    if found:
        assert recurrence.period(after).end == found[0]
        assert found[-1] == recurrence.period(until).start


@pytest.mark.parametrize(
    ("anchor", "interval", "n", "expected"),
    [
        ("2025-01-31T00:00Z", "P1M", 1, "2025-02-28T00:00Z"),
        ("2025-01-31T00:00Z", "P1M", 2, "2025-03-31T00:00Z"),
        ("2024-01-31T00:00Z", "P1M", 1, "2024-02-29T00:00Z"),
        ("2025-03-31T00:00Z", "P1M", -1, "2025-02-28T00:00Z"),
        ("2024-02-29T00:00Z", "P1Y", 1, "2025-02-28T00:00Z"),
        ("2024-02-29T00:00Z", "P1Y", 4, "2028-02-29T00:00Z"),
        ("2025-01-01T00:00Z", "P2W", 3, "2025-02-12T00:00Z"),
        ("2025-01-01T00:00Z", "PT36H", 2, "2025-01-04T00:00Z"),
        ("2025-01-31T06:00Z", "P1MT12H", 1, "2025-02-28T18:00Z"),
    ],
)
def test_occurrences_by_hand(anchor: str, interval: str, n: int, expected: str) -> None:
    assert Recurrence(at(anchor), parse_interval(interval)).occurrence(n) == at(expected)


@pytest.mark.parametrize(
    ("zone", "anchor", "n", "expected"),
    [
        # Local midnight stays local midnight, both ways over the change of the clocks.
        ("Europe/Budapest", "2025-03-29T00:00+01:00", 2, "2025-03-31T00:00+02:00"),
        ("Europe/Budapest", "2025-10-25T00:00+02:00", 2, "2025-10-27T00:00+01:00"),
        # A time that the clocks skip is later by the skip; one that they repeat is the first.
        ("Europe/Budapest", "2025-03-29T02:30+01:00", 1, "2025-03-30T03:30+02:00"),
        ("Europe/Budapest", "2025-10-25T02:30+02:00", 1, "2025-10-26T02:30+02:00"),
        # An anchor in the second of two equal hours stays where it is.
        ("Europe/Budapest", "2025-10-26T02:30+01:00", 0, "2025-10-26T02:30+01:00"),
        # A midnight that does not exist.
        ("America/Sao_Paulo", "2018-11-03T00:00-03:00", 1, "2018-11-04T01:00-02:00"),
    ],
)
def test_days_of_a_zone(zone: str, anchor: str, n: int, expected: str) -> None:
    assert Recurrence(at(anchor), DAY, ZoneInfo(zone)).occurrence(n) == at(expected)


def test_a_day_that_a_zone_skips_makes_no_empty_period() -> None:
    days = Recurrence(at("2011-12-28T00:00-10:00"), DAY, ZoneInfo("Pacific/Apia"))
    found = list(days.between(at("2011-12-28T00:00-10:00"), at("2012-01-02T00:00+14:00")))
    assert [t.astimezone(ZoneInfo("Pacific/Apia")).day for t in found] == [29, 31, 1, 2]
    assert days.period(at("2011-12-31T00:00+14:00")) == Period(
        at("2011-12-31T00:00+14:00"), at("2012-01-01T00:00+14:00")
    )


def test_beyond_the_calendar_is_never() -> None:
    assert shift(at("2025-01-01T00:00Z"), parse_interval("P1000Y"), 100) == NEVER
    assert shift(at("2025-01-01T00:00Z"), parse_interval("P1000Y"), 10**9, ZoneInfo("UTC")) == NEVER


@given(intervals)
def test_an_interval_survives_its_text(interval: Interval) -> None:
    assert parse_interval(format_interval(interval)) == interval


@pytest.mark.parametrize(
    ("text", "canonical", "name"),
    [
        ("DAY", "P1D", "DAY"),
        ("P7D", "P1W", "WEEK"),
        ("P12M", "P1Y", "YEAR"),
        ("P1M", "P1M", "MONTH"),
        ("P1Y2M10DT2H30M", "P1Y2M10DT2H30M", None),
        ("PT90M", "PT1H30M", None),
        ("PT0.5S", "PT0.5S", None),
        ("PT1.000S", "PT1S", None),
    ],
)
def test_intervals_as_text(text: str, canonical: str, name: str | None) -> None:
    assert format_interval(parse_interval(text)) == canonical
    assert interval_name(parse_interval(text)) == name


@pytest.mark.parametrize(
    "text",
    ["", "P", "PT", "P1", "1M", "P1MT", "P-1M", "-P1M", "P1.5M", "month", "P1M ", "P0D", "PT0S"]
    + ["P1001Y", "P99999999999999D", "P1D1M", "P१M", "P" + "1" * 100 + "D"],
)
def test_what_is_no_interval(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_interval(text)
