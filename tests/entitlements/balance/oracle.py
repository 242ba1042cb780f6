"""The rules again, event by event and without a plan: what the engine must agree with.

It is slow and knows nothing of phases, spans or snapshots. Additive meters without corrections.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal

from dateutil.relativedelta import relativedelta

from entitlements.balance import Allowance, Grant
from meterline.kernel.periods import Recurrence
from tests.entitlements.balance.usage import Event

ZERO = Decimal(0)
Resets = dict[datetime, bool]


@dataclass
class State:
    balances: dict[str, Decimal] = field(default_factory=dict)
    usage: Decimal = ZERO
    overage: Decimal = ZERO
    burnt: Decimal = ZERO

    def pay(self, order: list[Grant]) -> None:
        for grant in order:
            if grant.id in self.balances:
                paid = min(self.overage, self.balances[grant.id])
                self.balances[grant.id] -= paid
                self.overage -= paid
                self.burnt += paid


def occurrences(recurrence: Recurrence, start: datetime, end: datetime) -> list[datetime]:
    """All in [start, end], by dateutil, in UTC."""
    step = recurrence.interval
    found: list[datetime] = []
    n = -2000
    while True:
        delta = relativedelta(months=step.months * n, days=step.days * n)
        at = recurrence.anchor.astimezone(UTC) + delta + step.time * n
        if at > end:
            return found
        if at >= start:
            found.append(at)
        n += 1


def resets(allowance: Allowance, until: datetime) -> Resets:
    """Every reset until then, and whether it preserves overage."""
    terms = allowance.terms
    default = terms.preserve_overage_at_reset
    found: Resets = {}
    by_hand = {reset.at: reset for reset in allowance.resets}
    recurrence = terms.usage_period
    times = [terms.measure_from, *sorted(by_hand)]
    for start, end in zip(times, [*times[1:], until], strict=True):
        if start in by_hand:
            reset = by_hand[start]
            if not reset.retain_anchor:
                recurrence = Recurrence(start, recurrence.interval)
            own = reset.preserve_overage
            found[start] = default if own is None else own
        for at in occurrences(recurrence, start, end):
            if at > start:
                found.setdefault(at, default)
    return {at: preserve for at, preserve in found.items() if terms.measure_from < at <= until}


def state_at(allowance: Allowance, events: list[Event], until: datetime) -> State:
    start = allowance.terms.measure_from
    order = sorted(
        allowance.grants,
        key=lambda g: (
            g.priority,
            g.expires_at or datetime.max.replace(tzinfo=UTC),
            g.created_at,
            g.id,
        ),
    )
    reset_at = resets(allowance, until)
    recurs = {
        g.id: set(occurrences(g.recurrence, g.effective_at, until)) if g.recurrence else set()
        for g in order
    }
    used = [e for e in events if start <= e.time < until]
    times = {start, until, *reset_at, *(e.time for e in used)}
    for g in order:
        times |= {g.effective_at, g.ends_at or until, *recurs[g.id]}
    state = State()
    for now in sorted(t for t in times if start <= t <= until):
        for g in order:
            if not g.active_at(now):
                state.balances.pop(g.id, None)
        if now in reset_at:
            state.usage = state.burnt = ZERO
            state.overage = state.overage if reset_at[now] else ZERO
            for g in order:
                if g.id in state.balances:
                    kept = max(g.min_rollover, state.balances[g.id])
                    state.balances[g.id] = min(g.max_rollover, kept)
        for g in order:
            if g.active_at(now) and (g.id not in state.balances or now in recurs[g.id]):
                state.balances[g.id] = g.amount
        state.pay(order)
        for event in used:
            if event.time == now:
                state.usage += event.amount
                state.overage += event.amount
                state.pay(order)
    return state
