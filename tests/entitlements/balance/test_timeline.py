from entitlements.balance import Reset, anchor_at, period_at
from entitlements.balance.timeline import borders
from meterline.kernel.periods import Period
from tests.entitlements.balance.build import START, Case, at, every, grant


def period(case: Case, when: str) -> Period:
    return period_at(case.allowance, at(when))


def test_the_first_period_starts_with_measurement_and_ends_by_the_anchor() -> None:
    case = Case(measure_from=at("01-10"), period=every("P1M", at("2024-07-05")))
    assert period(case, "01-10") == Period(at("01-10"), at("02-05"))
    assert period(case, "02-05") == Period(at("02-05"), at("03-05"))


def test_an_anchor_in_the_future_counts_backwards() -> None:
    case = Case(period=every("P1M", at("2030-06-15")))
    assert period(case, "01-01") == Period(START, at("01-15"))


def test_periods_of_month_ends_are_counted_from_the_anchor() -> None:
    case = Case(period=every("P1M", at("2024-12-31")))
    ends = [b.at for b in borders(case.allowance, START, at("05-01"))]
    assert ends == [at("01-31"), at("02-28"), at("03-31"), at("04-30")]


def test_a_reset_moves_the_anchor() -> None:
    case = Case(resets=[Reset(at("01-20T06:30"))])
    assert period(case, "01-19") == Period(START, at("01-20T06:30"))
    assert period(case, "01-20T06:30") == Period(at("01-20T06:30"), at("02-20T06:30"))
    assert anchor_at(case.allowance, at("01-19")) == START
    assert anchor_at(case.allowance, at("03-01")) == at("01-20T06:30")


def test_a_reset_that_retains_the_anchor_ends_as_before() -> None:
    case = Case(resets=[Reset(at("01-20"), retain_anchor=True)])
    assert period(case, "01-25") == Period(at("01-20"), at("02-01"))
    assert anchor_at(case.allowance, at("01-25")) == START


def test_resets_follow_each_other_in_any_order_of_arrival() -> None:
    case = Case(resets=[Reset(at("02-10"), retain_anchor=True), Reset(at("01-20"))])
    found = [b.at for b in borders(case.allowance, START, at("03-01"))]
    assert found == [at("01-20"), at("02-10"), at("02-20")]


def test_a_reset_that_is_not_after_the_start_of_measurement_is_none() -> None:
    case = Case(
        period=every("P1M", at("2024-12-05")), resets=[Reset(START), Reset(at("2024-12-20"))]
    )
    assert period(case, "01-02") == Period(START, at("01-05"))


def test_a_reset_at_a_border_is_one_reset() -> None:
    case = Case(resets=[Reset(at("02-01"), retain_anchor=True, preserve_overage=True)])
    found = list(borders(case.allowance, START, at("03-01")))
    assert found == [(at("02-01"), True), (at("03-01"), False)]


def test_local_midnights_over_both_changes_of_the_clocks() -> None:
    anchor = at("2025-03-29T00:00+01:00")
    case = Case(grant("a", 10), period=every("P1D", anchor, "Europe/Budapest"))
    spring = period(case, "2025-03-30T12:00+02:00")
    autumn = period(case, "2025-10-26T12:00+01:00")
    assert spring == Period(at("2025-03-30T00:00+01:00"), at("2025-03-31T00:00+02:00"))
    assert autumn == Period(at("2025-10-26T00:00+02:00"), at("2025-10-27T00:00+01:00"))
    assert (spring.end - spring.start).total_seconds() == 23 * 3600
    assert (autumn.end - autumn.start).total_seconds() == 25 * 3600


def test_a_zone_survives_a_reset() -> None:
    period_ = every("P1D", at("2025-03-01T00:00+01:00"), "Europe/Budapest")
    case = Case(period=period_, resets=[Reset(at("2025-03-29T12:00+01:00"))])
    assert period(case, "2025-03-31").start == at("2025-03-30T12:00+02:00")
