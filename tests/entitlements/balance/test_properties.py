"""Rules that hold for every allowance and every usage."""

import random
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitlements.balance import Allowance, Run, Segment, balance_at, burn, metering_of, plan
from entitlements.balance.model import burn_order
from entitlements.balance.timeline import borders, period_at
from meterline.kernel.meters import Aggregation
from tests.entitlements.balance.oracle import resets, state_at
from tests.entitlements.balance.strategies import (
    BASE,
    allowances,
    corrected_events,
    events,
    exact_instants,
    unhurried,
)
from tests.entitlements.balance.usage import Event, MemoryMeter

ZERO = Decimal(0)
metered = [a for a in Aggregation if a not in (Aggregation.AVG, Aggregation.MIN)]


def run_of(allowance: Allowance, used: list[Event], until: datetime) -> Run:
    planned = plan(allowance, until, marks=[BASE])
    return burn(planned, MemoryMeter(events=used).read(planned.spans), record_from=BASE)


@unhurried
@given(allowances(), events, exact_instants)
def test_the_engine_agrees_with_the_rules_taken_event_by_event(
    allowance: Allowance, used: list[Event], at: datetime
) -> None:
    found = balance_at(allowance, at, MemoryMeter(events=used).read)
    expected = state_at(allowance, used, at)
    assert dict(found.grant_balances) == expected.balances
    assert (found.usage, found.overage) == (expected.usage, expected.overage)
    left = sum(expected.balances.values(), ZERO)
    assert found.balance == left
    assert found.total_available_grant_amount == expected.burnt + left


@pytest.mark.parametrize("aggregation", metered)
@unhurried
@given(st.data())
def test_a_run_split_anywhere_is_the_whole_run(
    aggregation: Aggregation, data: st.DataObject
) -> None:
    allowance = data.draw(allowances(metering_of(aggregation)))
    meter = MemoryMeter(aggregation, data.draw(corrected_events))
    first, second = sorted([data.draw(exact_instants), data.draw(exact_instants)])
    whole = balance_at(allowance, second, meter.read)

    planned = plan(allowance, first)
    snapshot = burn(planned, meter.read(planned.spans)).opening
    assert balance_at(allowance, second, meter.read, since=snapshot) == whole

    looked = plan(allowance, second, marks=[first])
    run = burn(looked, meter.read(looked.spans))
    assert run.balance == whole
    assert run.marks[first] == balance_at(allowance, first, meter.read)


@unhurried
@given(allowances(), corrected_events, exact_instants, st.randoms())
def test_nothing_depends_on_the_order_of_arrival(
    allowance: Allowance, used: list[Event], at: datetime, shuffler: random.Random
) -> None:
    before = balance_at(allowance, at, MemoryMeter(events=used).read)
    mixed, given_, by_hand = list(used), list(allowance.grants), list(allowance.resets)
    for things in (mixed, given_, by_hand):
        shuffler.shuffle(things)
    allowance = replace(allowance, grants=tuple(given_), resets=tuple(by_hand))
    assert balance_at(allowance, at, MemoryMeter(events=mixed).read) == before


@unhurried
@given(allowances(), events, exact_instants)
def test_granted_and_recurred_is_remaining_burnt_and_forfeited(
    allowance: Allowance, used: list[Event], until: datetime
) -> None:
    run = run_of(allowance, used, until)
    final = run.balance.grant_balances
    for grant in allowance.grants:
        filled, forfeited, balance = ZERO, ZERO, ZERO
        for segment in run.segments:
            start = segment.grant_balances_at_start.get(grant.id, ZERO)
            filled += max(start - balance, ZERO)
            forfeited += max(balance - start, ZERO)
            if start > balance:
                assert start in (grant.amount, grant.min_rollover, grant.max_rollover)
            if start < balance:
                assert start in (ZERO, grant.max_rollover, grant.amount)
            balance = segment.grant_balances_at_end.get(grant.id, ZERO)
        start = final.get(grant.id, ZERO)
        burnt = sum((s.grant_usages.get(grant.id, ZERO) for s in run.segments), ZERO)
        forfeited += balance - min(balance, start)
        filled += max(start - balance, ZERO)
        assert filled == start + burnt + forfeited


@unhurried
@given(allowances(), events, exact_instants)
def test_usage_of_a_period_is_burnt_or_overage(
    allowance: Allowance, used: list[Event], until: datetime
) -> None:
    run = run_of(allowance, used, until)
    for segment in run.segments:
        paid = sum(segment.grant_usages.values(), ZERO)
        assert segment.usage + segment.overage_at_start == paid + segment.overage
        assert segment.balance_at_start - paid == segment.balance_at_end
    for _, group in groupby(run.segments, lambda s: period_at(allowance, s.period.start)):
        period = list(group)
        usage = sum((s.usage for s in period), ZERO)
        paid = sum((sum(s.grant_usages.values(), ZERO) for s in period), ZERO)
        assert period[0].overage_at_start + usage == paid + period[-1].overage


@unhurried
@given(allowances(), events, exact_instants)
def test_no_grant_burns_while_one_before_it_has_balance(
    allowance: Allowance, used: list[Event], until: datetime
) -> None:
    order = [grant.id for grant in sorted(allowance.grants, key=burn_order)]
    for segment in run_of(allowance, used, until).segments:
        active = [grant_id for grant_id in order if grant_id in segment.grant_balances_at_end]
        assert list(segment.grant_balances_at_end) == active
        payers = [grant_id for grant_id in active if grant_id in segment.grant_usages]
        for grant_id in active[: active.index(payers[-1])] if payers else []:
            assert segment.grant_balances_at_end[grant_id] == 0
        if segment.overage and not segment.is_rollover:
            assert segment.balance_at_end == 0


@unhurried
@given(allowances(), events, exact_instants)
def test_history_is_without_gaps_and_rolls_over_within_the_clamp(
    allowance: Allowance, used: list[Event], until: datetime
) -> None:
    segments = run_of(allowance, used, until).segments
    for a, b in pairwise(segments):
        assert a.period.end == b.period.start
        assert a.ends_in_reset == b.is_rollover
    told = [s.period.start for s in segments if s.is_rollover]
    found = [border.at for border in borders(allowance, BASE, until)]
    assert told == found == sorted(resets(allowance, until))
    for segment in filter(_is_rollover, segments):
        for grant in allowance.grants:
            kept = segment.grant_balances_at_start.get(grant.id)
            if kept is not None:
                assert min(grant.min_rollover, grant.max_rollover) <= kept <= grant.max_rollover


@unhurried
@given(allowances(), st.lists(exact_instants, min_size=1, max_size=5))
def test_corrections_never_lift_a_balance_over_what_it_was(
    allowance: Allowance, times: list[datetime]
) -> None:
    taken = [Event(t, Decimal(-5)) for t in times]
    until = max(times)
    found = balance_at(allowance, until, MemoryMeter(events=taken).read)
    unused = balance_at(allowance, until, MemoryMeter().read)
    assert found.grant_balances == unused.grant_balances
    assert found.overage == 0


def _is_rollover(segment: Segment) -> bool:
    return segment.is_rollover
