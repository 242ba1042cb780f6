from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitlements.balance import Allowance, History, Reset, balance_at, history, plan_history
from meterline.kernel.errors import ValidationError
from meterline.kernel.meters import Aggregation
from meterline.kernel.periods import Period
from meterline.kernel.windows import WindowSize, load_zone
from tests.entitlements.balance.build import Case, at, every, grant, row
from tests.entitlements.balance.strategies import (
    BASE,
    TICK,
    allowances,
    corrected_events,
    unhurried,
)
from tests.entitlements.balance.usage import Event, MemoryMeter


def told(
    case: Case, start: str, end: str, size: WindowSize = WindowSize.DAY, zone: str = "UTC"
) -> History:
    planned = plan_history(case.allowance, at(start), at(end), size, load_zone(zone))
    return history(planned, case.meter.read(planned.spans))


def test_segments_show_who_paid_and_what_a_reset_left() -> None:
    case = Case(
        grant("a", 10, max_rollover=10, min_rollover=2),
        grant("b", 5, at("01-20")),
        preserve_overage_at_reset=True,
    )
    case.use("01-10", 12).use("01-25", 6).use("02-02", 1)
    first, second, rollover, third = told(case, "01-01", "02-03").segments
    assert row(first.usage, first.overage_at_start, first.overage) == (12, 0, 2)
    assert first.period == Period(at("01-01"), at("01-20"))
    assert dict(first.grant_usages) == {"a": 10}
    assert row(second.overage_at_start, second.usage, second.overage) == (2, 6, 3)
    assert dict(second.grant_balances_at_start) == {"a": 0, "b": 5}
    assert dict(second.grant_usages) == {"b": 5}
    assert second.ends_in_reset and not first.ends_in_reset
    assert rollover.is_rollover and rollover.period == Period(at("02-01"), at("02-01"))
    assert dict(rollover.grant_balances_at_start) == {"a": 2, "b": 0}
    assert row(rollover.overage_at_start, rollover.overage) == (3, 1)
    assert dict(rollover.grant_usages) == {"a": 2}
    assert row(third.overage_at_start, third.usage, third.overage) == (1, 1, 2)
    assert third.balance_at_start == third.balance_at_end == 0


def test_history_in_the_middle_of_a_phase_starts_with_the_balance_of_then() -> None:
    case = Case(grant("a", 10)).use("01-02", 3).use("01-05", 4)
    (segment,) = told(case, "01-04", "01-07").segments
    assert row(segment.balance_at_start, segment.usage, segment.balance_at_end) == (7, 4, 3)
    assert segment.period == Period(at("01-04"), at("01-07"))


def test_windows_are_whole_and_those_before_measurement_are_left_out() -> None:
    case = Case(grant("a", 10), measure_from=at("01-01T06:00"), period=every("P1Y"))
    case.use("01-01T07:00", 1).use("01-02T01:00", 2).use("01-03T18:00", 4)
    found = told(case, "01-01T06:00", "01-03T12:00")
    assert [row(w.period.start.day, w.usage, w.balance_at_start) for w in found.windows] == [
        (2, 2, 9),
        (3, 4, 7),
    ]
    assert found.segments[0].period == Period(at("01-01T06:00"), at("01-03T12:00"))
    later = told(case, "01-02T06:00", "01-03T12:00")
    assert row(later.windows[0].period.start, later.windows[0].usage) == (at("01-02"), 2)


def test_windows_of_a_zone_follow_its_clocks() -> None:
    case = Case(grant("a", 10), period=every("P1Y"))
    found = told(case, "2025-03-29T00:00+01:00", "2025-04-01T00:00+02:00", zone="Europe/Budapest")
    hours = [(w.period.end - w.period.start).total_seconds() / 3600 for w in found.windows]
    assert hours == [24, 23, 24]


def test_a_window_of_a_gauge_shows_its_reading_in_the_window() -> None:
    case = Case(grant("a", 100), aggregation=Aggregation.LATEST)
    case.use("01-02", 30).use("01-04", 20)
    found = told(case, "01-01", "01-06")
    assert [w.usage for w in found.windows] == [0, 30, 0, 20, 0]
    assert [w.balance_at_start for w in found.windows] == [100, 100, 70, 70, 80]
    (segment,) = found.segments
    assert row(segment.usage, segment.balance_at_start, segment.balance_at_end) == (20, 100, 80)


def test_segments_of_a_gauge_show_its_reading_against_whole_limits() -> None:
    case = Case(grant("a", 100), grant("b", 50, at("01-04")), aggregation=Aggregation.LATEST)
    case.use("01-02", 130).use("01-05", 20)
    first, second = told(case, "01-01", "01-06").segments
    assert row(first.usage, first.overage_at_start, first.overage) == (130, 0, 30)
    assert row(second.usage, second.overage_at_start, second.overage) == (20, 0, 0)
    assert row(second.balance_at_start, second.balance_at_end) == (150, 130)


def test_segments_start_with_the_first_window() -> None:
    found = told(Case(grant("a", 10)), "01-04T12:00", "01-06")
    assert found.segments[0].period == Period(at("01-04"), at("01-06"))


def test_a_reset_at_the_end_is_told() -> None:
    case = Case(grant("a", 10, max_rollover=10), resets=[Reset(at("01-05"))]).use("01-02", 4)
    before, rollover, after = told(case, "01-01", "01-05").segments
    assert before.ends_in_reset and rollover.is_rollover
    assert after.period == Period(at("01-05"), at("01-05"))
    assert after.balance_at_start == 6


@pytest.mark.parametrize(("start", "end"), [("2024-12-31", "01-05"), ("01-05", "01-05")])
def test_what_cannot_be_told(start: str, end: str) -> None:
    with pytest.raises(ValidationError, match="from"):
        told(Case(), start, end)


@unhurried
@given(allowances(), corrected_events, st.integers(0, 60), st.integers(0, 60))
def test_history_is_the_balances_of_its_instants(
    allowance: Allowance, used: list[Event], first: int, length: int
) -> None:
    meter = MemoryMeter(events=used)
    start = BASE + first * TICK
    # Nothing else is at this instant: what changes at the very end is not always told.
    end = start + length * TICK + timedelta(milliseconds=7)
    planned = plan_history(allowance, start, end, WindowSize.DAY, load_zone("Asia/Kolkata"))
    found = history(planned, meter.read(planned.spans))
    for window in found.windows:
        then = balance_at(allowance, window.period.start, meter.read)
        assert (window.balance_at_start, window.overage_at_start) == (then.balance, then.overage)
    last = balance_at(allowance, end, meter.read)
    assert found.segments[-1].grant_balances_at_end == last.grant_balances
    assert found.segments[-1].overage == last.overage
    if found.windows:
        used_then = sum((w.usage for w in found.windows), Decimal(0))
        shown = Period(found.windows[0].period.start, found.windows[-1].period.end)
        inside = [e for e in used if e.time in shown]
        assert used_then == sum((e.amount for e in inside), Decimal(0))
