"""Which grants refill a subject's credits. Pure.

A refill without rollover is one grant that recurs. With rollover each interval gets a grant of its
own, which outlives it by one interval; at the border between them the reset of the entitlement cuts
it down to the rollover. So late usage is burnt from what it would have been burnt from in time.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from entitlements.balance import Grant, Segment
from entitlements.balance.exact import ROOM, ZERO, total
from entitlements.model import IssuedGrant
from entitlements.plans.model import CreditAllocation
from meterline.kernel.instants import format_instant
from meterline.kernel.periods import Interval, Period, Recurrence, format_interval
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


def counting_since(
    issued: Iterable[IssuedGrant], period: Period, now: datetime
) -> Mapping[str, datetime]:
    """Since when what was used of a refill counts: by id, of those whose interval is not over.

    `period` is the entitlement's current usage period. A refill that went with its plan is among
    them: otherwise the next plan would hand out again what was used of it.
    """
    of_refills = [one for one in issued if REFILL in one.metadata]
    starts = ((one.grant.id, _interval_start(one, period, now)) for one in of_refills)
    return {grant_id: start for grant_id, start in starts if start is not None}


def used_of_refills(segments: Iterable[Segment], since: Mapping[str, datetime]) -> Decimal:
    """What the history of a balance says that refills have paid, each from its instant on."""
    paid = total(
        amount
        for segment in segments
        for grant_id, amount in segment.grant_usages.items()
        if grant_id in since and segment.period.start >= since[grant_id]
    )
    return max(paid, ZERO)


def plan_refills(
    allocation: CreditAllocation | None,
    issued: Sequence[IssuedGrant],
    period: Period,
    months: Recurrence,
    now: datetime,
    used: Decimal | None,
) -> RefillChange:
    """Bring a subject's refills in line with its plan.

    `period` is the entitlement's current usage period, and `months` the borders of all of them.
    What was `used` of refills whose interval is not over stays used of a new one; None starts
    afresh, whatever there is.
    """
    name = None if allocation is None else allocation_name(allocation)
    mine: list[IssuedGrant] = []
    old: list[IssuedGrant] = []
    for one in refills(issued):
        (mine if used is not None and _name(one) == name else old).append(one)
    void = [one.grant.id for one in old if not _is_over(one.grant, now)]
    if allocation is None:
        return RefillChange((), void, None)
    used = used or ZERO
    if allocation.max_rollover:
        return _with_rollover(allocation, mine, period, months, now, used, void)
    if any(not _is_over(one.grant, now) and one.grant.recurrence for one in mine):
        return RefillChange((), void, None)
    return RefillChange(_recurring(allocation, months, now, used), void, None)


def _recurring(
    allocation: CreditAllocation, months: Recurrence, now: datetime, used: Decimal
) -> list[Refill]:
    name = allocation_name(allocation)
    monthly = allocation.interval == MONTH
    recurrence = months if monthly else Recurrence(now, allocation.interval)
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
    months: Recurrence,
    now: datetime,
    used: Decimal,
    void: list[str],
) -> RefillChange:
    name = allocation_name(allocation)
    second = months.period(period.end).end
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
            end = months.period(second).end
            make.append(Refill(ref, allocation.amount, period.end, end, allocation.max_rollover))
        due_at = period.end
    return RefillChange(make, void, due_at)


def _interval_start(one: IssuedGrant, period: Period, now: datetime) -> datetime | None:
    """When the interval began that a refill is of; None when that interval is over."""
    grant = one.grant
    if grant.effective_at > now:
        return None
    if grant.recurrence is not None:
        return max(grant.recurrence.period(now).start, grant.effective_at)
    # One with rollover outlives its interval, which is the entitlement's usage period.
    is_over = grant.effective_at < period.start if _rolls_over(one) else _is_expired(grant, now)
    return None if is_over else grant.effective_at


def _is_expired(grant: Grant, now: datetime) -> bool:
    return grant.expires_at is not None and grant.expires_at <= now


def _is_over(grant: Grant, now: datetime) -> bool:
    return grant.ends_at is not None and grant.ends_at <= now


def _rolls_over(one: IssuedGrant) -> bool:
    """Whether its allocation has a rollover."""
    return Decimal(_name(one).split("/")[2]) > 0


def _name(one: IssuedGrant) -> str:
    return one.metadata[REFILL].partition("@")[0]


def _at(one: IssuedGrant) -> str:
    return one.metadata[REFILL].partition("@")[2]
