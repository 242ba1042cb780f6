"""History: the balance at the start of each window, and the burn-down segment by segment."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from entitlements.balance.burndown import burn
from entitlements.balance.exact import ZERO
from entitlements.balance.model import Allowance
from entitlements.balance.phases import Plan, plan
from entitlements.balance.results import Segment
from entitlements.balance.snapshots import Snapshot
from meterline.kernel.errors import ValidationError
from meterline.kernel.instants import format_instant
from meterline.kernel.periods import Period
from meterline.kernel.windows import WindowSize, window_end, window_starts


@dataclass(frozen=True, slots=True)
class Window:
    """A window of the calendar: what was used in it, and where things stood at its start.

    A grant or a reset inside a window shows in the balance at the start of the next one.
    """

    period: Period
    usage: Decimal
    balance_at_start: Decimal
    overage_at_start: Decimal


@dataclass(frozen=True, slots=True)
class History:
    """The same time told in two ways."""

    windows: tuple[Window, ...]
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class HistoryPlan:
    """What to read of the meter, and then how to tell it."""

    plan: Plan
    start: datetime
    windows: tuple[Period, ...]

    @property
    def spans(self) -> tuple[Period, ...]:
        """The plan's own spans, then the windows."""
        return self.plan.spans + self.windows


def plan_history(
    allowance: Allowance,
    start: datetime,
    end: datetime,
    size: WindowSize,
    zone: ZoneInfo,
    *,
    since: Snapshot | None = None,
) -> HistoryPlan:
    """The history of [start, end), in windows of a zone.

    Windows are whole: history starts with the window that holds `start`, and the usage of the
    last one is counted to its own end. One that starts before measurement is left out. Segments
    end at `end`. A snapshot is used only when it is not later than the start.
    """
    measured = allowance.terms.measure_from
    if start < measured:
        raise ValidationError(f"from cannot be before {format_instant(measured)}")
    if start >= end:
        raise ValidationError("from must be before to")
    starts = [t for t in window_starts(start, end, size, zone) if t >= measured]
    windows = tuple(Period(t, window_end(t, size, zone)) for t in starts)
    start = min([start, *starts[:1]])
    if since and since.at > start:
        since = None
    return HistoryPlan(plan(allowance, end, since=since, marks=[start, *starts]), start, windows)


def history(planned: HistoryPlan, values: Sequence[Decimal | None]) -> History:
    """The history that the meter's values over the planned spans make."""
    phases = len(planned.plan.spans)
    run = burn(planned.plan, values[:phases], record_from=planned.start)
    windows = []
    for period, value in zip(planned.windows, values[phases:], strict=True):
        level = run.marks[period.start]
        windows.append(Window(period, value or ZERO, level.balance, level.overage))
    return History(tuple(windows), run.segments)
