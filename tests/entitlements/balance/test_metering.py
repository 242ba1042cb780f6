from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given

from entitlements.balance import Allowance, Metering, Reset, balance_at, metering_of, period_at
from meterline.kernel.errors import ValidationError
from meterline.kernel.meters import Aggregation
from meterline.kernel.periods import Period
from tests.entitlements.balance.build import Case, at, grant
from tests.entitlements.balance.strategies import allowances, events, exact_instants, unhurried
from tests.entitlements.balance.usage import Event, MemoryMeter

LATEST, MAX = Aggregation.LATEST, Aggregation.MAX


def test_averages_and_minima_measure_no_usage() -> None:
    assert metering_of(Aggregation.COUNT) is Metering.ADDITIVE
    for aggregation in (Aggregation.AVG, Aggregation.MIN):
        with pytest.raises(ValidationError, match=f"not {aggregation}"):
            metering_of(aggregation)


def test_count_counts_events() -> None:
    case = Case(grant("a", 10), aggregation=Aggregation.COUNT).use("01-02", 7).use("01-03", 7)
    assert case.figures("01-04") == (8, 2, 0)


def test_a_gauge_keeps_its_reading_when_a_grant_comes_or_goes() -> None:
    case = Case(
        grant("a", 100, expires_at=at("01-20")),
        grant("b", 50, at("01-10"), priority=2),
        aggregation=LATEST,
    ).use("01-05", 30)
    assert case.figures("01-06") == (70, 30, 0)
    assert case.figures("01-10") == (120, 30, 0)
    assert case.figures("01-15") == (120, 30, 0)
    assert case.figures("01-20") == (20, 30, 0)
    assert case.balance("01-20").total_available_grant_amount == 50


def test_a_gauge_falls_and_its_overage_with_it() -> None:
    case = Case(grant("a", 100), aggregation=LATEST).use("01-05", 130).use("01-06", 40)
    assert case.figures("01-05T01:00") == (0, 130, 30)
    assert case.figures("01-07") == (60, 40, 0)


def test_a_gauge_starts_at_zero_in_each_period_with_its_limits_whole() -> None:
    case = Case(grant("a", 100), aggregation=LATEST).use("01-05", 130)
    assert case.figures("02-01") == (100, 0, 0)


def test_overage_of_a_gauge_that_is_preserved_lowers_the_limit_of_the_new_period() -> None:
    case = (
        Case(
            grant("a", 100),
            grant("b", 10, at("02-10")),
            aggregation=LATEST,
            preserve_overage_at_reset=True,
        )
        .use("01-05", 130)
        .use("02-05", 20)
    )
    assert case.figures("02-01") == (70, 0, 0)
    assert case.figures("02-06") == (50, 20, 0)
    assert case.figures("02-10") == (60, 20, 0)


def test_max_is_the_highest_of_the_period() -> None:
    case = Case(grant("a", 10), grant("b", 10, at("01-10")), aggregation=MAX)
    case.use("01-02", 4).use("01-11", 3).use("01-12", 7).use("02-02", 1)
    assert case.figures("01-09") == (6, 4, 0)
    assert case.figures("01-11T01:00") == (16, 4, 0)
    assert case.figures("01-13") == (13, 7, 0)
    assert case.figures("02-03") == (0, 1, 1)


def test_a_value_is_unique_in_a_period_not_in_a_phase() -> None:
    case = Case(grant("a", 10), grant("b", 10, at("01-10")), aggregation=Aggregation.UNIQUE_COUNT)
    case.use("01-02", 1, "x").use("01-11", 1, "x").use("01-11", 1, "y")
    assert case.figures("01-12") == (18, 2, 0)


@unhurried
@given(allowances(Metering.GAUGE), events, exact_instants)
def test_a_gauge_is_its_reading_against_the_limits_of_now(
    allowance: Allowance, used: list[Event], instant: datetime
) -> None:
    forgiving = replace(allowance.terms, preserve_overage_at_reset=False)
    resets = tuple(replace(reset, preserve_overage=None) for reset in allowance.resets)
    allowance = replace(allowance, terms=forgiving, resets=resets)
    meter = MemoryMeter(LATEST, used)
    found = balance_at(allowance, instant, meter.read)
    period = period_at(allowance, instant)
    reading = meter.read([Period(period.start, instant)])[0] or Decimal(0)
    limit = sum((g.amount for g in allowance.grants if g.active_at(instant)), Decimal(0))
    assert found.usage == reading
    assert found.balance == max(limit - reading, Decimal(0))
    assert found.overage == max(reading - limit, Decimal(0))
    assert found.total_available_grant_amount == limit


def test_spans_reach_back_to_the_start_of_the_period_unless_additive() -> None:
    seen = {}
    for aggregation in (Aggregation.SUM, MAX):
        case = Case(
            grant("a", 10, at("01-10")), resets=[Reset(at("01-20"))], aggregation=aggregation
        )

        def read(spans: Sequence[Period], name: Aggregation = aggregation) -> list[Decimal]:
            seen[name] = [(s.start.day, s.end.day) for s in spans]
            return [Decimal(0)] * len(seen[name])

        balance_at(case.allowance, at("01-25"), read)
    assert seen == {
        Aggregation.SUM: [(1, 10), (10, 20), (20, 25)],
        MAX: [(1, 10), (1, 20), (20, 25)],
    }
