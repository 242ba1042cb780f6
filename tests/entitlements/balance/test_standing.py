"""One snapshot and one number say the same as the whole run, until the next change."""

from datetime import datetime, timedelta
from decimal import Decimal

from hypothesis import assume, given

from entitlements.balance import Allowance, balance_at, burn, plan
from entitlements.balance.standing import Standing, next_change
from meterline.kernel.periods import Period
from tests.entitlements.balance.strategies import (
    allowances,
    corrected_events,
    exact_instants,
    unhurried,
)
from tests.entitlements.balance.usage import Event, MemoryMeter

ZERO = Decimal(0)
MILLISECOND = timedelta(milliseconds=1)


def _standing(allowance: Allowance, meter: MemoryMeter, at: datetime) -> Standing:
    planned = plan(allowance, at)
    opening = burn(planned, meter.read(planned.spans)).opening
    return Standing(opening, next_change(allowance, at))


@unhurried
@given(allowances(), corrected_events, exact_instants, exact_instants)
def test_a_standing_gives_the_balance_of_the_whole_run(
    allowance: Allowance, used: list[Event], looked: datetime, later: datetime
) -> None:
    meter = MemoryMeter(events=used)
    standing = _standing(allowance, meter, looked)
    at = max(looked, min(later, standing.until - MILLISECOND))
    assume(at in standing)
    (usage,) = meter.read([Period(standing.opening.at, at)])
    assert standing.balance(usage or ZERO, at) == balance_at(allowance, at, meter.read)


@unhurried
@given(allowances(), exact_instants)
def test_nothing_changes_before_the_next_change(allowance: Allowance, looked: datetime) -> None:
    until = next_change(allowance, looked)
    assert until > looked
    planned = plan(allowance, min(until - MILLISECOND, looked + timedelta(days=4000)))
    starts = [phase.start for phase in planned.phases if phase.changes]
    assert not [start for start in starts if looked < start < until]
