"""Thresholds and the other rules, as pure functions of values."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitlements.notifications.firing import Seen, fired, is_reached, next_look, tells_from
from entitlements.notifications.model import (
    EntitlementValue,
    EventType,
    ExpiringGrant,
    Rule,
    Threshold,
)
from meterline.kernel.periods import NEVER, Interval, Period, shift
from tests.entitlements.notifications.build import DAY, FEATURE, NOW, rule, threshold, value

KINDS = ("balance_value", "usage_value", "usage_percentage")


@pytest.mark.parametrize(
    ("kind", "limit", "usage", "reached"),
    [
        ("usage_value", 80, 79, False),
        ("usage_value", 80, "79.999999999999999999", False),
        ("usage_value", 80, 80, True),
        ("usage_value", 0, 0, False),
        ("usage_value", 0, "0.000000000000000001", True),
        ("NUMBER", 80, 80, True),
        ("usage_percentage", 80, 79, False),
        ("usage_percentage", 80, 80, True),
        ("usage_percentage", "79.5", "79.5", True),
        ("usage_percentage", 150, 149, False),
        ("usage_percentage", 150, 150, True),
        ("PERCENT", 50, 50, True),
        ("balance_value", 20, 79, False),
        ("balance_value", 20, 80, True),
        ("balance_value", 0, 99, False),
        ("balance_value", 0, 100, True),
    ],
)
def test_a_threshold_is_reached(kind: str, limit: object, usage: object, reached: bool) -> None:
    assert is_reached(threshold(kind, limit), value(usage), None) is reached


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_was_granted(kind: str) -> None:
    """Without a grant there is no percentage and no balance to fall, but there may be usage."""
    assert is_reached(threshold(kind, 10), value(20, granted=0), None) is (kind == "usage_value")


def test_a_grant_that_expired_unused_lets_the_balance_fall() -> None:
    gone = value(0, granted=0)
    had = Seen(gone.period.start, Decimal(50))
    assert is_reached(threshold("balance_value", 10), gone, had)
    exhausted = rule(EventType.EXHAUSTED)
    assert [one.type for one in fired([exhausted], gone, had)] == [EventType.EXHAUSTED]
    assert not list(fired([exhausted], gone, None))


thresholds = st.lists(
    st.builds(threshold, st.sampled_from(KINDS), st.integers(0, 200)),
    min_size=1,
    max_size=10,
    unique=True,
)
paths = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 250), st.integers(0, 150)), min_size=1, max_size=25
)


def walk(rules: list[Rule], path: list[tuple[int, int, int]]) -> tuple[list[str], set[str]]:
    """Keys that fire along (day, usage, granted), in order; and all that were reached there."""
    known: set[str] = set()
    order: list[str] = []
    reached: set[str] = set()
    before: Seen | None = None
    for day, usage, granted in sorted(path, key=lambda one: one[0]):
        now = value(usage, granted, NOW + day * DAY)
        for event in fired(rules, now, before):
            assert event.key is not None
            reached.add(event.key)
            if event.key not in known:
                known.add(event.key)
                order.append(event.key)
        before = Seen(now.period.start, now.balance)
    return order, reached


@given(thresholds, paths)
def test_each_threshold_fires_once_a_period_whatever_the_path(
    limits: list[Threshold], path: list[tuple[int, int, int]]
) -> None:
    watching = [
        rule(EventType.BALANCE_THRESHOLD, *limits),
        rule(EventType.EXHAUSTED, rule_id="01J5RULE000000000000000001"),
    ]
    order, reached = walk(watching, path)
    assert len(order) == len(set(order))
    assert set(order) == reached
    # Looking twice at everything changes nothing.
    doubled = [one for step in sorted(path, key=lambda one: one[0]) for one in (step, step)]
    assert walk(watching, doubled)[0] == order


@given(thresholds, st.integers(0, 250), st.integers(0, 250))
def test_a_jump_fires_what_a_climb_fires(limits: list[Threshold], start: int, end: int) -> None:
    """Usage only rises: no threshold depends on which values were seen on the way."""
    watching = [rule(EventType.BALANCE_THRESHOLD, *limits)]
    low, high = sorted((start, end))
    climb = [(0, usage, 100) for usage in range(low, high + 1)]
    jump = [(0, low, 100), (0, high, 100)]
    assert set(walk(watching, climb)[0]) == set(walk(watching, jump)[0])


def test_a_new_period_fires_anew() -> None:
    watching = [rule(EventType.BALANCE_THRESHOLD, threshold("usage_value", 50))]
    assert len(walk(watching, [(0, 60, 100), (0, 40, 100), (0, 70, 100), (1, 60, 100)])[0]) == 2


def test_a_reset_is_told_when_the_period_was_another() -> None:
    watching = [rule(EventType.RESET)]
    first = value(10)
    assert not list(fired(watching, first, None))
    assert not list(fired(watching, first, Seen(first.period.start, Decimal(90))))
    (told,) = fired(watching, first, Seen(first.period.start - DAY, Decimal(0)))
    assert told.data["entitlement"]["currentUsagePeriod"]["from"] == "2026-03-01T00:00:00Z"


@pytest.mark.parametrize(
    ("changes", "fires"),
    [
        ({}, True),
        ({"disabled": True}, False),
        ({"features": (FEATURE,)}, True),
        ({"features": (replace(FEATURE, id="01J5OTHER00000000000000000"),)}, False),
    ],
)
def test_which_entitlements_a_rule_watches(changes: dict[str, Any], fires: bool) -> None:
    one = rule(EventType.EXHAUSTED, **changes)
    assert bool(list(fired([one], value(100), None))) is fires
    other = replace(value(100), namespace="other")
    assert not list(fired([one], other, None))


def grant(balance: int = 5, expires_in: timedelta = 3 * DAY) -> ExpiringGrant:
    return ExpiringGrant(
        "01J5GRANT00000000000000000", Decimal(balance), NOW - 30 * DAY, NOW + expires_in
    )


def test_a_grant_that_expires() -> None:
    week = rule(EventType.GRANTS_EXPIRING)
    day = rule(
        EventType.GRANTS_EXPIRING, rule_id="01J5RULE000000000000000002", lead_time=Interval(days=1)
    )
    seen = value(grants=[grant()])
    (told,) = fired([week, day], seen, None)
    assert told.rule_id == week.id
    assert told.data["grant"]["expiresAt"] == "2026-03-04T12:00:00Z"
    assert next_look([week, day], seen) == NOW + 2 * DAY
    assert not list(fired([week], value(grants=[grant(balance=0)]), None))
    assert not list(fired([week], value(grants=[grant(expires_in=timedelta(0))]), None))


@given(st.integers(1, 400), st.integers(1, 400))
def test_a_grant_is_told_of_from_its_lead_time_or_its_start(lead: int, life: int) -> None:
    made = ExpiringGrant("g", Decimal(1), NOW, NOW + life * DAY)
    watching = rule(EventType.GRANTS_EXPIRING, lead_time=Interval(days=lead))
    expected = max(NOW, shift(made.expires_at, Interval(days=lead), -1))
    assert tells_from(watching, made) == expected


def test_a_period_without_an_end() -> None:
    endless: EntitlementValue = value(100, period=Period(NOW - DAY, NEVER))
    (told,) = fired([rule(EventType.EXHAUSTED)], endless, None)
    assert "to" not in told.data["entitlement"]["currentUsagePeriod"]
    assert told.remember_until == NEVER
