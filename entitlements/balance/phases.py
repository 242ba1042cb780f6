"""Planning: time is cut at every change, before any usage is known.

A *phase* is time in which nothing but usage changes balances. What happens at its first instant
happens in this order: grants end, the period is reset, grants recur, grants start. Between its
start and its end a phase may have *stops*: instants at which a balance is wanted, too.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from entitlements.balance.model import Allowance, Grant, burn_order
from entitlements.balance.snapshots import Snapshot
from entitlements.balance.timeline import Border, borders
from meterline.kernel.errors import ValidationError
from meterline.kernel.instants import format_instant
from meterline.kernel.periods import NEVER, Period


@dataclass(slots=True)
class Changes:
    """What happens at an instant. Grants are named by their place in the burn order."""

    ended: list[int] = field(default_factory=list)
    border: Border | None = None
    recurred: list[int] = field(default_factory=list)
    started: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Phase:
    """The time from one change to the next. The last phase may be a single instant."""

    period_start: datetime
    start: datetime
    end: datetime
    changes: Changes | None
    stops: tuple[datetime, ...]
    """The wanted instants from `start` on, then `end`."""


@dataclass(frozen=True)
class Plan:
    """All phases up to an instant, and the usage that must be known to burn them."""

    allowance: Allowance
    grants: tuple[Grant, ...]
    """In burn order."""
    since: Snapshot | None
    start: datetime
    until: datetime
    marks: frozenset[datetime]
    phases: tuple[Phase, ...]

    @cached_property
    def spans(self) -> tuple[Period, ...]:
        """What to read of the meter: one span for each stop of a phase that has time before it."""
        return tuple(self._spans())

    def _spans(self) -> Iterator[Period]:
        metering = self.allowance.terms.metering
        for phase in self.phases:
            before = phase.start
            for stop in phase.stops:
                if stop > before:
                    yield metering.span(phase.period_start, before, stop)
                    before = stop


def plan(
    allowance: Allowance,
    until: datetime,
    *,
    since: Snapshot | None = None,
    marks: Iterable[datetime] = (),
) -> Plan:
    """The phases from the start of measurement, or from a snapshot, to `until`.

    `marks` are earlier instants at which the balance is wanted as well.
    """
    start = since.at if since else allowance.terms.measure_from
    if until < start:
        raise ValidationError(f"nothing is measured before {format_instant(start)}")
    grants = tuple(sorted(allowance.grants, key=burn_order))
    changes = _changes(allowance, grants, start, until, fresh=since is None)
    wanted = frozenset(mark for mark in marks if start <= mark <= until)
    period_start = since.period_start if since else start
    phases = tuple(_phases(changes, start, until, period_start, sorted(wanted)))
    return Plan(allowance, grants, since, start, until, wanted, phases)


def _changes(
    allowance: Allowance,
    grants: tuple[Grant, ...],
    start: datetime,
    until: datetime,
    *,
    fresh: bool,
) -> dict[datetime, Changes]:
    """What happens in (start, until]; when there is no state before, also what holds at `start`."""
    changes: defaultdict[datetime, Changes] = defaultdict(Changes)
    for rank, grant in enumerate(grants):
        begins, ends = grant.effective_at, grant.ends_at or NEVER
        if ends <= begins or ends <= start or begins > until:
            continue
        if begins > start:
            changes[begins].started.append(rank)
        elif fresh:
            changes[start].started.append(rank)
        if ends <= until:
            changes[ends].ended.append(rank)
        if grant.recurrence:
            for at in grant.recurrence.between(max(begins, start), until):
                if at >= ends:
                    break
                changes[at].recurred.append(rank)
    for border in borders(allowance, start, until):
        changes[border.at].border = border
    return changes


def _phases(
    changes: dict[datetime, Changes],
    start: datetime,
    until: datetime,
    period_start: datetime,
    marks: list[datetime],
) -> Iterator[Phase]:
    starts = sorted(changes.keys() | {start})
    passed = 0
    for at, end in zip(starts, [*starts[1:], until], strict=True):
        change = changes.get(at)
        if change and change.border:
            period_start = at
        reached = bisect_left(marks, end, lo=passed)
        yield Phase(period_start, at, end, change, (*marks[passed:reached], end))
        passed = reached
