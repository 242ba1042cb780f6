from decimal import Decimal

from entitlements.access import Access, Lifetime, boolean_access, metered_access, static_access
from tests.entitlements.balance.build import START, Case, at, grant, row

ALIVE = Lifetime(START)
ENDED = Lifetime(START, at("01-10"))


def test_a_hard_limit_gives_access_while_anything_is_left() -> None:
    case = Case(grant("a", 10)).use("01-05", "9.999999999999999999").use("01-06", 5)
    some = metered_access(case.balance("01-06"), ALIVE, is_soft_limit=False)
    none = metered_access(case.balance("01-07"), ALIVE, is_soft_limit=False)
    assert (some.has_access, none.has_access) == (True, False)
    assert some.metered and some.metered.balance == Decimal("0.000000000000000001")


def test_a_soft_limit_always_gives_access() -> None:
    assert metered_access(Case().balance("01-06"), ALIVE, is_soft_limit=True).has_access


def test_holds_lower_what_is_available() -> None:
    balance = Case(grant("a", "99999999999999999999.000000000000000001")).balance("01-06")
    figures = metered_access(balance, ALIVE, is_soft_limit=False, held=Decimal(1)).metered
    assert figures and figures.available == Decimal("99999999999999999998.000000000000000001")
    assert row(figures.held, figures.as_of) == (1, at("01-06"))


def test_an_entitlement_that_ended_gives_nothing() -> None:
    balance = Case(grant("a", 10)).balance("01-10")
    assert metered_access(balance, ENDED, is_soft_limit=True) == Access(False)
    assert static_access(at("01-10"), ENDED, "{}") == Access(False)
    assert boolean_access(at("01-10"), ENDED) == Access(False)


def test_static_and_boolean() -> None:
    assert static_access(at("01-05"), ENDED, '{"a":1}') == Access(True, config='{"a":1}')
    assert boolean_access(at("01-05"), ENDED) == Access(True)
    assert not boolean_access(at("2024-12-31"), ALIVE).has_access
