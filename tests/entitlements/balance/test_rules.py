from dataclasses import replace

import pytest

from entitlements.balance import Reset, check_reset, check_void
from meterline.kernel.errors import ValidationError
from tests.entitlements.balance.build import Case, at, grant

NOW = at("02-15")
CASE = Case(grant("a", 1), resets=[Reset(at("02-10"), retain_anchor=True)])


@pytest.mark.parametrize("when", ["02-10T00:00:00.001", "02-15"])
def test_the_current_period_may_be_reset(when: str) -> None:
    check_reset(CASE.allowance, at(when), NOW)


def test_a_border_of_periods_may_be_reset_too() -> None:
    check_reset(Case().allowance, at("02-01"), NOW)


@pytest.mark.parametrize(
    ("when", "reason"),
    [
        ("02-15T00:00:00.001", "in the future"),
        ("02-10", "a reset at this time already"),
        ("02-05", "is before current usage period start 2025-02-10T00:00:00Z"),
    ],
)
def test_resets_that_are_refused(when: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        check_reset(CASE.allowance, at(when), NOW)


def test_a_period_that_is_over_keeps_its_end() -> None:
    with pytest.raises(ValidationError, match="current usage period start 2025-02-01T00:00:00Z"):
        check_reset(Case().allowance, at("01-31"), NOW)


def test_a_reset_is_not_put_before_another() -> None:
    # Only a clock that went back can see this.
    with pytest.raises(ValidationError, match="before last reset 2025-02-10T00:00:00Z"):
        check_reset(CASE.allowance, at("02-05"), at("02-06"))


def test_the_start_of_measurement_is_no_reset() -> None:
    with pytest.raises(ValidationError, match="measurement starts"):
        check_reset(Case().allowance, at("01-01"), at("01-02"))


def test_voiding() -> None:
    (given,) = CASE.allowance.grants
    check_void(CASE.allowance, given, NOW, NOW)
    voided = replace(given, voided_at=at("02-11"))
    with pytest.raises(ValidationError, match="in the future"):
        check_void(CASE.allowance, given, at("02-16"), NOW)
    with pytest.raises(ValidationError, match="already voided, since 2025-02-11"):
        check_void(CASE.allowance, voided, NOW, NOW)
    with pytest.raises(ValidationError, match="before current usage period start"):
        check_void(CASE.allowance, given, at("02-09"), NOW)
