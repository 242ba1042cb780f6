"""How the engine cuts time into a query's windows. Pure.

The windows themselves are those of `kernel.windows`; the engine only gets numbers. So it needs no
time zone database of its own, which could be another version than Python's.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from aggregator.binding import Binder
from aggregator.query import MeterQuery, QueryLimits, TimeRange
from meterline.kernel.errors import FieldError, ValidationError
from meterline.kernel.instants import EARLIEST, LATEST, to_micros
from meterline.kernel.windows import (
    WindowSize,
    even_step,
    whole_minutes,
    window_start,
    window_starts,
)

_SHORT = timedelta(days=400)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class EvenCut:
    """Windows of one length, counted from `base`; in microseconds since 1970."""

    base: int
    step: int

    def start_sql(self, micros: str, bind: Binder) -> str:
        """The start of the window that holds `micros`, an expression never below `base`."""
        base, step = bind(self.base, "Int64"), bind(self.step, "Int64")
        return f"{base} + intDiv({micros} - {base}, {step}) * {step}"


@dataclass(frozen=True, slots=True)
class ListedCut:
    """Windows of any lengths: their starts, in microseconds since 1970."""

    starts: tuple[int, ...]

    def start_sql(self, micros: str, bind: Binder) -> str:
        """The start of the window that holds `micros`, an expression never below the first."""
        return f"roundDown({micros}, {bind(list(self.starts), 'Array(Int64)')})"


Cut = EvenCut | ListedCut


def needs_data_range(query: MeterQuery) -> bool:
    """Whether the windows can only be listed once it is known from when to when there is data."""
    if query.window is None or _is_plain(query.window, query.tz):
        return False
    begin, end = query.since, query.range.end
    return begin is None or end is None or end - begin > _SHORT


def make_cut(query: MeterQuery, data: TimeRange, limits: QueryLimits) -> Cut | None:
    """How to cut; `data` is the range of the data where `needs_data_range` asked for it."""
    if query.window is None:
        return None
    begin, end = _span(query, data)
    step = even_step(begin, end, query.window, query.tz)
    if step is not None:
        base = window_start(begin, query.window, query.tz)
        return EvenCut(to_micros(base), step // _MICROSECOND)
    starts = window_starts(begin, end, query.window, query.tz)
    listed = tuple(to_micros(start) for start in islice(starts, limits.max_windows + 1))
    if len(listed) > limits.max_windows:
        reason = f"more than {limits.max_windows} windows: take larger ones or a shorter range"
        raise ValidationError(f"windowSize: {reason}", errors=[FieldError("windowSize", reason)])
    return ListedCut(listed)


def on_whole_minutes(query: MeterQuery, data: TimeRange) -> bool:
    """Whether all windows start on a UTC minute, so that sums per UTC minute fit into them."""
    if query.window is None or _is_plain(query.window, query.tz):
        return True
    return whole_minutes(*_span(query, data), query.tz)


def _is_plain(size: WindowSize, tz: ZoneInfo) -> bool:
    return tz.key == "UTC" and size is not WindowSize.MONTH


def _span(query: MeterQuery, data: TimeRange) -> tuple[datetime, datetime]:
    begins = [t for t in (query.since, data.begin) if t is not None]
    ends = [t for t in (query.range.end, data.end) if t is not None]
    return max(begins, default=EARLIEST), min(ends, default=LATEST)
