"""Burning: usage is paid by grants, phase after phase. Pure arithmetic on a plan.

Within a phase, balances are always what the usage *since its start* leaves of the balances at its
start. So a balance does not depend on how often, or when, somebody looks.

What is *owed* is usage that no grant has paid yet. It is carried from phase to phase of a period,
so a later grant pays it; when it is positive, it is the overage. Corrections (negative usage) give
back to the grants that paid last, and no more than they paid.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from datetime import datetime
from decimal import Decimal, localcontext

from entitlements.balance.exact import ROOM, ZERO, total
from entitlements.balance.metering import Metering
from entitlements.balance.phases import Changes, Phase, Plan
from entitlements.balance.recorder import Recorder
from entitlements.balance.results import Amounts, Balance, Level, Run
from entitlements.balance.rollover import rolled_over
from entitlements.balance.snapshots import Snapshot


def settle(
    active: Sequence[int], filled: Amounts, balances: Amounts, owed: Decimal
) -> tuple[Amounts, Decimal]:
    """Pay `owed` from the active grants, in order: their balances then, and what stays owed."""
    if not owed or not active:
        return balances, owed
    balances = balances.copy()
    if owed > 0:
        for rank in active:
            balance = balances[rank]
            if balance >= owed:
                balances[rank] = balance - owed
                return balances, ZERO
            if balance:
                balances[rank] = ZERO
                owed -= balance
    else:
        for rank in reversed(active):
            paid = filled[rank] - balances[rank]
            if paid >= -owed:
                balances[rank] -= owed
                return balances, ZERO
            if paid:
                balances[rank] = filled[rank]
                owed += paid
    return balances, owed


def burn(
    plan: Plan, values: Sequence[Decimal | None], *, record_from: datetime | None = None
) -> Run:
    """The balances that a plan leads to, given the meter's value over each of its spans.

    Segments of history are kept from `record_from` on, which must be a mark of the plan.
    """
    if len(values) != len(plan.spans):
        raise ValueError(f"{len(plan.spans)} values are needed, not {len(values)}")
    recorder = Recorder(plan, record_from) if record_from else None
    with localcontext(ROOM):
        return _Burner(plan, iter(values), recorder).run()


class _Burner:
    """The state at the start of a phase, and the steps from one to the next.

    Lists of amounts are never changed once another part may hold them; they are replaced.
    """

    def __init__(
        self, plan: Plan, values: Iterator[Decimal | None], recorder: Recorder | None
    ) -> None:
        self._plan = plan
        self._values = values
        self._recorder = recorder
        self._metering = plan.allowance.terms.metering
        self._gauge = self._metering is Metering.GAUGE
        self._active: tuple[int, ...] = ()
        self._balances: Amounts = [ZERO] * len(plan.grants)
        self._filled = self._balances
        self._usage = self._burnt = self._owed = self._preserved = ZERO
        if plan.since:
            self._resume(plan.since)

    def run(self) -> Run:
        levels: dict[datetime, Balance] = {}
        last = self._plan.phases[-1]
        for phase in self._plan.phases:
            if phase.changes:
                self._change(phase.start, phase.changes)
            level = self._burn(phase, levels)
            if phase is last:
                break
            self._advance(level)
        segments = tuple(self._recorder.segments) if self._recorder else ()
        return Run(self._balance(last, last.end, level), self._snapshot(last), levels, segments)

    def _burn(self, phase: Phase, levels: dict[datetime, Balance]) -> Level:
        """Pay the usage of a phase; the level at its end."""
        before = phase.start
        level = opening = Level(self._usage, self._balances, self._owed)
        for stop in phase.stops:
            usage = level.usage
            if stop > before:
                usage = self._metering.usage(usage, next(self._values) or ZERO)
                before = stop
            owed = self._owed + usage - self._usage
            level = Level(usage, *settle(self._active, self._filled, self._balances, owed))
            if stop in self._plan.marks:
                levels[stop] = self._balance(phase, stop, level)
            if self._recorder and self._recorder.starts_at(stop) and not self._gauge:
                opening = level
        if self._recorder:
            self._recorder.phase(phase, self._active, opening, level)
        return level

    def _advance(self, level: Level) -> None:
        self._burnt = self._burnt_at(level)
        self._usage, self._balances, self._owed = level.usage, level.balances, level.owed

    def _burnt_at(self, level: Level) -> Decimal:
        """What grants have paid in the period, at a level of this phase."""
        return self._burnt + self._owed + level.usage - self._usage - level.owed

    def _change(self, at: datetime, changes: Changes) -> None:
        """Apply what happens at the start of a phase."""
        active = list(self._active)
        self._balances, self._filled = self._balances.copy(), self._filled.copy()
        for rank in changes.ended:
            active.remove(rank)
        if changes.border:
            fresh = min(changes.recurred + changes.started, default=len(self._plan.grants))
            self._reset(at, active, fresh, preserve=changes.border.preserve_overage)
        for rank in changes.started:
            insort(active, rank)
        for rank in changes.started + changes.recurred:
            self._balances[rank] = self._filled[rank] = self._plan.grants[rank].amount
        self._active = tuple(active)
        if self._gauge:
            self._refill()

    def _reset(self, at: datetime, active: list[int], fresh: int, *, preserve: bool) -> None:
        """Roll the active grants over and start a period.

        Overage that is preserved is paid at once by the grants that come before the first fresh
        one, so that none pays which is filled anew at this very instant; the rest is left to the
        new phase.
        """
        self._preserved = preserved = max(self._owed, ZERO) if preserve else ZERO
        for rank in active:
            kept = rolled_over(self._plan.grants[rank], self._balances[rank])
            self._balances[rank] = self._filled[rank] = kept
        opening = Level(ZERO, self._balances, preserved)
        paying = active[: bisect_left(active, fresh)] if not self._gauge else ()
        self._balances, self._owed = settle(paying, self._filled, self._balances, preserved)
        self._usage, self._burnt = ZERO, preserved - self._owed
        if self._recorder:
            closing = Level(ZERO, self._balances, self._owed)
            self._recorder.rollover(at, tuple(active), opening, closing)
        self._balances = self._balances.copy()

    def _refill(self) -> None:
        """Grants are limits of a gauge: each phase starts with all of them, and owes its reading.

        So a gauge keeps its reading when grants change.
        """
        for rank in self._active:
            self._balances[rank] = self._filled[rank] = self._plan.grants[rank].amount
        self._owed, self._burnt = self._preserved + self._usage, ZERO

    def _balance(self, phase: Phase, at: datetime, level: Level) -> Balance:
        balances = {self._plan.grants[rank].id: level.balances[rank] for rank in self._active}
        left = total(balances.values())
        return Balance(
            at=at,
            period_start=phase.period_start,
            balance=left,
            usage=level.usage,
            overage=max(level.owed, ZERO),
            total_available_grant_amount=self._burnt_at(level) + left,
            grant_balances=balances,
        )

    def _snapshot(self, phase: Phase) -> Snapshot:
        ids = {self._plan.grants[rank].id: rank for rank in self._active}
        return Snapshot(
            at=phase.start,
            period_start=phase.period_start,
            usage=self._usage,
            burnt=self._burnt,
            owed=self._owed,
            balances={grant_id: self._balances[rank] for grant_id, rank in ids.items()},
            filled={grant_id: self._filled[rank] for grant_id, rank in ids.items()},
        )

    def _resume(self, since: Snapshot) -> None:
        self._usage, self._burnt, self._owed = since.usage, since.burnt, since.owed
        # What a gauge owes at the start of a phase is its reading, and this.
        self._preserved = since.owed - since.usage
        held = [(rank, g.id) for rank, g in enumerate(self._plan.grants) if g.id in since.balances]
        self._active = tuple(rank for rank, _ in held)
        self._filled = self._filled.copy()
        for rank, grant_id in held:
            self._balances[rank] = since.balances[grant_id]
            self._filled[rank] = since.filled[grant_id]
