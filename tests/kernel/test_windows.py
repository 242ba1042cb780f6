from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.kernel.errors import ValidationError
from meterline.kernel.windows import (
    WindowSize,
    even_step,
    load_zone,
    offset_changes,
    whole_minutes,
    window_end,
    window_start,
    window_starts,
)

# Zones with a story: summer time, half-hour summer time, :45 offsets, a skipped day, midnights
# that do not exist, clocks that went back over midnight, offsets with seconds.
ZONES = [
    "UTC",
    "Europe/Budapest",
    "America/Los_Angeles",
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "America/St_Johns",
    "America/Toronto",
    "Africa/Casablanca",
    "Africa/Monrovia",
    "Europe/Amsterdam",
    "Etc/GMT+5",
]
zones = st.sampled_from(ZONES).map(ZoneInfo)
sizes = st.sampled_from(WindowSize)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@st.composite
def instants(draw: st.DrawFn, tz: ZoneInfo | None = None) -> datetime:
    """Any instant, often one near a change of the zone's clocks."""
    t = draw(st.datetimes(datetime(1900, 1, 2), datetime(2199, 12, 30), timezones=st.just(UTC)))
    if tz is not None and draw(st.booleans()):
        for instant, _ in offset_changes(
            t, min(t + timedelta(days=400), at("2199-12-30T00:00Z")), tz
        ):
            return instant + timedelta(seconds=draw(st.integers(-90000, 90000)))
    return t


@given(st.data(), zones, sizes)
def test_windows_cover_time_without_gap_or_overlap(
    data: st.DataObject, tz: ZoneInfo, size: WindowSize
) -> None:
    t = data.draw(instants(tz))
    start = window_start(t, size, tz)
    end = window_end(start, size, tz)
    assert start <= t < end
    assert window_start(start, size, tz) == start
    assert window_start(end - timedelta(microseconds=1), size, tz) == start
    assert window_start(end, size, tz) == end


@given(st.data(), zones, sizes, st.integers(1, 3 * 86400))
def test_even_steps_are_what_the_windows_are(
    data: st.DataObject, tz: ZoneInfo, size: WindowSize, span: int
) -> None:
    begin = data.draw(instants(tz))
    end = begin + timedelta(seconds=span // (60 if size is WindowSize.MINUTE else 1))
    starts = list(window_starts(begin, end, size, tz))
    assert starts == sorted(set(starts))
    step = even_step(begin, end, size, tz)
    if step is not None:
        assert all(window_end(start, size, tz) - start == step for start in starts)
    if whole_minutes(begin, end, tz):
        assert not any(start.second for start in starts)


def test_days_are_as_long_as_the_clocks_make_them() -> None:
    tz = load_zone("America/Los_Angeles")
    starts = list(
        window_starts(at("2025-03-08T08:00Z"), at("2025-03-11T07:00Z"), WindowSize.DAY, tz)
    )
    assert starts == [at("2025-03-08T08:00Z"), at("2025-03-09T08:00Z"), at("2025-03-10T07:00Z")]
    autumn = at("2025-11-02T07:00Z")
    assert window_end(autumn, WindowSize.DAY, tz) - autumn == timedelta(hours=25)
    month = window_start(at("2025-03-31T12:00Z"), WindowSize.MONTH, tz)
    assert (month, window_end(month, WindowSize.MONTH, tz)) == (
        at("2025-03-01T08:00Z"),
        at("2025-04-01T07:00Z"),
    )


def test_the_repeated_hour_is_a_window_of_its_own() -> None:
    tz = load_zone("America/New_York")
    hours = list(
        window_starts(at("2026-11-01T05:00Z"), at("2026-11-01T07:00Z"), WindowSize.HOUR, tz)
    )
    assert hours == [at("2026-11-01T05:00Z"), at("2026-11-01T06:00Z")]


def test_half_hour_offsets() -> None:
    assert window_start(at("2026-01-01T10:29Z"), WindowSize.HOUR, load_zone("Asia/Kolkata")) == at(
        "2026-01-01T09:30Z"
    )
    lord_howe = load_zone("Australia/Lord_Howe")
    back = at("2026-04-04T15:00Z")  # 02:00 becomes 01:30
    assert window_start(back, WindowSize.HOUR, lord_howe) == back
    assert window_end(back, WindowSize.HOUR, lord_howe) == at("2026-04-04T15:30Z")


def test_odd_midnights() -> None:
    # 2018-11-04 had no midnight in Brazil; Samoa had no 30 December 2011.
    brazil = load_zone("America/Sao_Paulo")
    assert window_start(at("2018-11-04T12:00Z"), WindowSize.DAY, brazil) == at("2018-11-04T03:00Z")
    apia = load_zone("Pacific/Apia")
    last = window_start(at("2011-12-30T09:00Z"), WindowSize.DAY, apia)
    assert window_end(last, WindowSize.DAY, apia) == at("2011-12-30T10:00Z")
    # In 1919 Toronto's clocks jumped from 23:30 to 00:30: the day starts at half past.
    toronto = load_zone("America/Toronto")
    assert window_start(at("1919-03-31T12:00Z"), WindowSize.DAY, toronto) == at("1919-03-31T04:30Z")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "é",
        "x" * 300,
        "Mars/Base",
        "europe",
        "../../etc/passwd",
        "/etc/localtime",
        "America",
        "right/UTC",
        "a\0b",
    ]
    + ["localtime", "UTC'; DROP TABLE x"],
)
def test_unknown_zones_are_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="unknown time zone"):
        load_zone(name)
