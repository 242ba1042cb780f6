"""Writing history down while a plan is burnt."""

from dataclasses import replace
from datetime import datetime

from entitlements.balance.exact import ZERO
from entitlements.balance.metering import Metering
from entitlements.balance.phases import Phase, Plan
from entitlements.balance.results import Level, Segment
from meterline.kernel.periods import Period


class Recorder:
    """The segments from an instant on. A segment that is under way then is cut there."""

    def __init__(self, plan: Plan, start: datetime) -> None:
        self._plan = plan
        self._start = start
        self._gauge = plan.allowance.terms.metering is Metering.GAUGE
        self.segments: list[Segment] = []

    def starts_at(self, stop: datetime) -> bool:
        """Whether the first segment starts there: what is known then is what it starts with."""
        return stop == self._start

    def phase(self, phase: Phase, active: tuple[int, ...], opening: Level, closing: Level) -> None:
        """A phase, or what of it is wanted."""
        start = max(phase.start, self._start)
        if phase.end < start or (phase.end == start and not self._worth_telling(phase)):
            return
        self.segments.append(self._segment(Period(start, phase.end), active, opening, closing))

    def rollover(
        self, at: datetime, active: tuple[int, ...], opening: Level, closing: Level
    ) -> None:
        """A reset: it ends the segment before it, and is one itself."""
        if at <= self._start:
            return
        self.segments[-1] = replace(self.segments[-1], ends_in_reset=True)
        segment = self._segment(Period(at, at), active, opening, closing)
        self.segments.append(replace(segment, is_rollover=True))

    def _worth_telling(self, phase: Phase) -> bool:
        """Of what happens at the last instant of all, resets and recurrences are told."""
        changes = phase.changes
        return changes is not None and bool(changes.border or changes.recurred)

    def _segment(
        self, period: Period, active: tuple[int, ...], opening: Level, closing: Level
    ) -> Segment:
        ids = [(self._plan.grants[rank].id, rank) for rank in active]
        at_start = {grant_id: opening.balances[rank] for grant_id, rank in ids}
        at_end = {grant_id: closing.balances[rank] for grant_id, rank in ids}
        # A phase of a gauge starts with its reading owed: all of it is usage, none is overage.
        known = opening.usage if self._gauge else ZERO
        return Segment(
            period=period,
            usage=closing.usage - opening.usage + known,
            overage_at_start=max(opening.owed - known, ZERO),
            overage=max(closing.owed, ZERO),
            grant_balances_at_start=at_start,
            grant_balances_at_end=at_end,
            grant_usages={
                grant_id: at_start[grant_id] - at_end[grant_id]
                for grant_id, _ in ids
                if at_start[grant_id] != at_end[grant_id]
            },
        )
