from decimal import Decimal

import pytest

from entitlements.balance import Reset, burn, issued_after_reset, plan
from entitlements.balance.model import burn_order
from meterline.kernel.errors import ValidationError
from tests.entitlements.balance.build import START, Case, at, every, grant


def test_order_is_priority_then_expiry_then_creation_then_id() -> None:
    grants = [
        grant("first", 1, priority=1),
        grant("soon", 1, priority=2, expires_at=at("02-01T00:00:00.001")),
        grant("later", 1, priority=2, expires_at=at("02-01T00:00:00.002")),
        grant("b", 1, priority=2),
        grant("a", 1, priority=2, created_at=at("01-02")),
        grant("b2", 1, priority=2, created_at=at("01-02")),
    ]
    mixed = [grants[i] for i in (3, 5, 0, 4, 1, 2)]
    assert [g.id for g in sorted(mixed, key=burn_order)] == [g.id for g in grants]


def test_a_later_grant_of_the_period_pays_its_earlier_overage() -> None:
    case = Case(grant("a", 10), grant("b", 100, at("01-20"))).use("01-10", 40)
    assert case.figures("01-19") == (0, 40, 30)
    assert case.figures("01-20") == (70, 40, 0)
    assert case.balance("01-20").total_available_grant_amount == 110


def test_overage_is_forgiven_at_a_reset() -> None:
    case = Case(grant("a", 10), grant("b", 100, at("02-01"))).use("01-10", 40)
    assert case.figures("02-01") == (100, 0, 0)


def test_overage_is_preserved_and_counts_as_paid_in_the_new_period() -> None:
    case = Case(grant("a", 10, recurrence=every("P1M")), preserve_overage_at_reset=True).use(
        "01-10", 14
    )
    assert case.figures("02-01") == (6, 0, 0)
    assert case.balance("02-01").total_available_grant_amount == 10
    case.use("01-11", 20)
    assert case.figures("02-01") == (0, 0, 14)
    assert case.figures("03-01") == (0, 0, 4)
    assert case.figures("04-01") == (6, 0, 0)


def test_a_grant_filled_at_a_reset_does_not_pay_preserved_overage_twice_or_for_free() -> None:
    # `a` rolls over with something left and recurs at the same instant.
    a = grant("a", 10, priority=1, min_rollover=10, max_rollover=10, recurrence=every("P1M"))
    case = Case(a, preserve_overage_at_reset=True).use("01-10", 14)
    assert case.figures("02-01") == (6, 0, 0)


def test_a_reset_by_hand_may_differ_from_the_terms() -> None:
    usual = Case(grant("a", 10, min_rollover=10, max_rollover=10)).use("01-10", 14)
    kept = Case(
        grant("a", 10, min_rollover=10, max_rollover=10),
        resets=[Reset(at("01-15"), preserve_overage=True)],
    ).use("01-10", 14)
    assert usual.figures("02-01") == (10, 0, 0)
    assert kept.figures("01-15") == (6, 0, 0)


def test_a_recurring_grant_is_set_to_its_amount_and_does_not_accumulate() -> None:
    case = Case(grant("a", 100, recurrence=every("P1W")), period=every("P1Y")).use("01-02", 30)
    assert case.figures("01-07") == (70, 30, 0)
    assert case.figures("01-08") == (100, 30, 0)
    assert case.balance("01-08").total_available_grant_amount == 130
    assert case.figures("02-01") == (100, 30, 0)


def test_recurrences_of_an_anchor_that_lies_ahead() -> None:
    case = Case(grant("a", 10, recurrence=every("P1W", at("01-20"))), period=every("P1Y"))
    case.use("01-02", 4)
    assert case.figures("01-05")[0] == 6
    assert case.figures("01-06")[0] == 10


def test_a_grant_takes_with_it_what_is_left_when_it_ends() -> None:
    expiring = grant("a", 100, expires_at=at("01-20"))
    case = Case(expiring, grant("b", 50, priority=2)).use("01-10", 30)
    assert case.figures("01-19T23:59:59.999") == (120, 30, 0)
    assert case.figures("01-20") == (50, 30, 0)
    assert case.balance("01-20").grant_balances == {"b": 50}
    assert case.balance("01-20").total_available_grant_amount == 80


def test_usage_before_a_void_stays_taken() -> None:
    voided = grant("a", 100, voided_at=at("01-20"), expires_at=at("01-25"))
    case = Case(voided, grant("b", 50, priority=2)).use("01-10", 30).use("01-20", 5)
    assert case.figures("01-21") == (45, 35, 0)


def test_a_grant_that_ends_before_it_starts_never_is() -> None:
    assert Case(grant("a", 10, at("01-10"), voided_at=at("01-05"))).figures("01-20")[0] == 0


def test_instants_are_exact() -> None:
    case = Case(grant("a", 10, at("01-10T00:00:00.001"))).use("01-10T00:00:00.001", 4)
    assert case.figures("01-10T00:00:00") == (0, 0, 0)
    assert case.figures("01-10T00:00:00.001") == (10, 0, 0)
    assert case.figures("01-10T00:00:00.002") == (6, 4, 0)


def test_numbers_are_exact() -> None:
    huge = "99999999999999999999.999999999999999999"
    case = Case(grant("a", huge), grant("b", huge, priority=2))
    case.use("01-02", huge).use("01-03", "0.000000000000000001")
    found = case.balance("01-04")
    assert found.grant_balances["b"] == Decimal("99999999999999999999.999999999999999998")
    assert found.usage == Decimal("100000000000000000000")
    assert found.total_available_grant_amount == Decimal("199999999999999999999.999999999999999998")


def test_what_cannot_be_exact_is_an_error() -> None:
    case = Case(grant("a", 1)).use("01-02", "1e-300")
    with pytest.raises(ArithmeticError):
        case.balance("01-03")


def test_an_issued_grant_is_full_after_each_reset_and_never_expires() -> None:
    terms = Case().allowance.terms
    issued = issued_after_reset(terms, Decimal(500), grant_id="i", created_at=START, priority=3)
    case = Case(issued).use("01-10", 600).use("02-10", 1)
    assert case.figures("01-31") == (0, 600, 100)
    assert case.figures("02-01") == (500, 0, 0)
    assert case.figures("03-01") == (500, 0, 0)
    assert issued.priority == 3


def test_a_back_dated_grant_and_late_usage_recompute_what_followed() -> None:
    rolling = grant("a", 100, max_rollover=100, expires_at=at("12-01"))
    case = Case(rolling).use("02-10", 10)
    assert case.figures("03-01") == (90, 0, 0)
    case.use("01-31T23:59:59.999", 5)
    assert case.figures("03-01") == (85, 0, 0)
    back_dated = Case(rolling, grant("b", 4, at("01-10"), priority=0))
    back_dated.use("02-10", 10).use("01-31", 5)
    assert back_dated.figures("03-01") == (89, 0, 0)


def test_corrections_go_back_to_those_who_paid_last() -> None:
    a, b = grant("a", 10), grant("b", 10, priority=2)
    later = [grant(f"at {day}", 10, at(day), priority=9) for day in ("01-04", "01-10")]
    case = Case(a, b, *later).use("01-02", 15)
    assert case.balance("01-04").grant_balances == {"a": 0, "b": 5, "at 01-04": 10}
    case.use("01-05", -7)
    assert case.balance("01-06").grant_balances == {"a": 2, "b": 10, "at 01-04": 10}
    # What is given back beyond all that was paid is credit for the rest of the period.
    case.use("01-06", -20)
    assert case.figures("01-07") == (30, -12, 0)
    case.use("01-11", 13)
    assert case.figures("01-12") == (39, 1, 0)
    assert case.figures("02-01") == (0, 0, 0)


def test_credit_of_corrections_ends_with_its_period() -> None:
    a = grant("a", 10, max_rollover=10)
    for preserve in (False, True):
        case = Case(a, preserve_overage_at_reset=preserve).use("01-02", -20).use("02-02", 3)
        assert case.figures("02-03") == (7, 3, 0)


def test_what_rolled_over_is_not_given_back_in_the_new_period() -> None:
    case = Case(grant("a", 10, max_rollover=4), grant("b", 1, at("02-10"), priority=2))
    case.use("02-02", 3).use("02-11", -10)
    assert case.balance("02-12").grant_balances == {"a": 4, "b": 1}


def test_nothing_is_before_measurement() -> None:
    case = Case(grant("a", 10, at("2024-12-01"))).use("2024-12-31T23:59", 5)
    assert case.figures("01-01") == (10, 0, 0)
    with pytest.raises(ValidationError, match="before 2025-01-01T00:00:00Z"):
        case.balance("2024-12-31")


def test_each_span_needs_its_value() -> None:
    with pytest.raises(ValueError, match="1 values are needed"):
        burn(plan(Case().allowance, at("01-10")), [])
