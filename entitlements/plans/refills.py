"""Which grants refill a subject's credits. Pure.

A refill without rollover is one grant that recurs. With rollover each interval gets a grant of its
own, which outlives it by one interval; at the border between them the reset of the entitlement cuts
it down to the rollover. So late usage is burnt from what it would have been burnt from in time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext

from entitlements.balance import Grant
from entitlements.balance.exact import ROOM, ZERO
from entitlements.model import IssuedGrant
from entitlements.plans.model import CreditAllocation
from meterline.kernel.instants import format_instant
from meterline.kernel.periods import Interval, Period, Recurrence, format_interval, shift
from meterline.kernel.quantity import format_number

REFILL = "meterlineRefill"
"""Name in a grant's metadata: which refill it is."""
MONTH = Interval(months=1)
AHEAD = timedelta(days=1)
"""How long before it starts a refill with rollover is issued."""


@dataclass(frozen=True, slots=True)
class Refill:
    """A grant to make. `ref` says which refill it is, so that it is made once."""

    ref: str
    amount: Decimal
    effective_at: datetime
    expires_at: datetime | None = None
    max_rollover: Decimal = ZERO
    recurrence: Recurrence | None = None


@dataclass(frozen=True, slots=True)
class RefillChange:
    """What to do to a subject's refills, and when to look again."""

    make: Sequence[Refill]
    void: Sequence[str]
    """Ids of grants."""
    due_at: datetime | None


def refills(issued: Sequence[IssuedGrant]) -> list[IssuedGrant]:
    """The refills among grants that have not been voided."""
    return [one for one in issued if REFILL in one.metadata and one.grant.voided_at is None]


def allocation_name(allocation: CreditAllocation) -> str:
    """Tells allocations apart."""
    parts = (allocation.amount, allocation.max_rollover, Decimal(allocation.priority))
    return "/".join([format_interval(allocation.interval), *map(format_number, parts)])


def stale(issued: Sequence[IssuedGrant], allocation: CreditAllocation | None) -> list[IssuedGrant]:
    """The refills that are not of this allocation."""
    name = None if allocation is None else allocation_name(allocation)
    return [one for one in refills(issued) if name is None or _name(one) != name]


def plan_refills(
    allocation: CreditAllocation | None,
    issued: Sequence[IssuedGrant],
    period: Period,
    now: datetime,
    balances: Mapping[str, Decimal] | None,
) -> RefillChange:
    """Bring a subject's refills in line with its plan.

    `period` is the entitlement's current usage period. `balances` of the refills that go: what was
    used of them stays used of the new one; None starts afresh.
    """
    old = stale(issued, allocation)
    void = [one.grant.id for one in old if not _is_over(one.grant, now)]
    if allocation is None:
        return RefillChange((), void, None)
    name = allocation_name(allocation)
    mine = [one for one in refills(issued) if _name(one) == name]
    used = _used(old, balances, now)
    if allocation.max_rollover:
        return _with_rollover(allocation, mine, period, now, used, void)
    if any(not _is_over(one.grant, now) and one.grant.recurrence for one in mine):
        return RefillChange((), void, None)
    return RefillChange(_recurring(allocation, name, period, now, used), void, None)


def _recurring(
    allocation: CreditAllocation, name: str, period: Period, now: datetime, used: Decimal
) -> list[Refill]:
    monthly = allocation.interval == MONTH
    recurrence = Recurrence(period.start if monthly else now, allocation.interval)
    at = now
    made = []
    if used > 0:
        at = recurrence.period(now).end
        rest = max(ROOM.subtract(allocation.amount, used), ZERO)
        if rest:
            ref = f"{name}@{format_instant(now)}"
            made.append(Refill(ref, rest, now, at, max_rollover=rest))
    ref = f"{name}@{format_instant(at)}"
    made.append(Refill(ref, allocation.amount, at, None, allocation.amount, recurrence))
    return made


def _with_rollover(
    allocation: CreditAllocation,
    mine: Sequence[IssuedGrant],
    period: Period,
    now: datetime,
    used: Decimal,
    void: list[str],
) -> RefillChange:
    name = allocation_name(allocation)
    second = shift(period.end, allocation.interval, 1)
    known = {_at(one): one for one in mine}
    make = []
    if not any(period.start <= one.grant.effective_at < period.end for one in mine):
        amount = max(ROOM.subtract(allocation.amount, used), ZERO)
        ref = f"{name}@{format_instant(period.start)}"
        if amount:
            make.append(Refill(ref, amount, now, second, allocation.max_rollover))
    for at, one in known.items():
        if one.grant.effective_at > now and at != format_instant(period.end):
            void.append(one.grant.id)
    due_at = period.end - AHEAD
    if now >= due_at:
        if format_instant(period.end) not in known:
            ref = f"{name}@{format_instant(period.end)}"
            end = shift(period.end, allocation.interval, 2)
            make.append(Refill(ref, allocation.amount, period.end, end, allocation.max_rollover))
        due_at = period.end
    return RefillChange(make, void, due_at)


def _used(
    old: Sequence[IssuedGrant], balances: Mapping[str, Decimal] | None, now: datetime
) -> Decimal:
    if balances is None:
        return ZERO
    active = [one for one in old if not _is_over(one.grant, now)]
    left = [balances[one.grant.id] for one in active if one.grant.id in balances]
    if not left:
        return ZERO
    with localcontext(ROOM):
        return max(_amount(active[0]) - sum(left, ZERO), ZERO)


def _is_over(grant: Grant, now: datetime) -> bool:
    return grant.ends_at is not None and grant.ends_at <= now


def _amount(one: IssuedGrant) -> Decimal:
    """What a whole refill of its allocation is; the grant may be a part of one."""
    return Decimal(_name(one).split("/")[1])


def _name(one: IssuedGrant) -> str:
    return one.metadata[REFILL].partition("@")[0]


def _at(one: IssuedGrant) -> str:
    return one.metadata[REFILL].partition("@")[2]
