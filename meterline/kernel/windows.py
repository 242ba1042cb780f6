"""Windows: how time is cut for a meter query, in a time zone.

The windows of one size in one zone are half-open, touch each other and cover all time.
- A DAY or MONTH starts at the first instant of that local date. It is as long as the local day
  or month is: 23 or 25 hours over a change of the clocks.
- A MINUTE or HOUR is a local clock minute or hour. When the clocks go back, the repeated hour is
  a window of its own; a change of the offset inside an hour cuts it in two.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from meterline.kernel.errors import ValidationError

_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)
# No zone of the database ever kept an offset for less than four days.
_STRIDE = timedelta(days=3)
# What some machines keep beside the zones: their own setting, and zones that count leap seconds.
_NOT_ZONES = frozenset({"", "localtime", "posixrules", "posix", "right"})


class WindowSize(StrEnum):
    """The sizes a query can ask for."""

    MINUTE = "MINUTE"
    HOUR = "HOUR"
    DAY = "DAY"
    MONTH = "MONTH"


_STEP = {WindowSize.MINUTE: timedelta(minutes=1), WindowSize.HOUR: timedelta(hours=1)}


def load_zone(name: str) -> ZoneInfo:
    """The IANA time zone of that name."""
    try:
        if name.split("/")[0] not in _NOT_ZONES and len(name) <= 64 and name.isascii():
            return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        pass
    raise ValidationError(f"unknown time zone: {name[:64]!r}")


def window_start(t: datetime, size: WindowSize, tz: ZoneInfo) -> datetime:
    """The start, in UTC, of the window that holds `t`."""
    t = t.astimezone(UTC)
    if size in _STEP:
        return _clock_start(t, _STEP[size], tz)
    first = _first_date(t.astimezone(tz).date(), size)
    start = _date_start(first, tz)
    # Clocks that go back over midnight bring yesterday's date again after today has begun.
    following = _next_date(first, size)
    while (next_start := _date_start(following, tz)) <= t:
        start, following = next_start, _next_date(following, size)
    return start


def window_end(start: datetime, size: WindowSize, tz: ZoneInfo) -> datetime:
    """The end, in UTC, of the window that starts at `start`."""
    start = start.astimezone(UTC)
    if size in _STEP:
        return _clock_end(start, _STEP[size], tz)
    following = _first_date(start.astimezone(tz).date(), size)
    while (end := _date_start(following, tz)) <= start:
        following = _next_date(following, size)
    return end


def window_starts(
    begin: datetime, end: datetime, size: WindowSize, tz: ZoneInfo
) -> Iterator[datetime]:
    """The starts of all windows that meet [begin, end), in order."""
    start = window_start(begin, size, tz)
    while start < end:
        yield start
        start = window_end(start, size, tz)


def even_step(begin: datetime, end: datetime, size: WindowSize, tz: ZoneInfo) -> timedelta | None:
    """The common length of all windows that meet [begin, end); None when they may differ."""
    if size is WindowSize.MONTH:
        return None
    step = _STEP.get(size, _DAY)
    offset = _offset(begin - _DAY, tz)
    for instant, changed in offset_changes(begin - _DAY, end + _DAY, tz):
        unaligned = (instant.replace(tzinfo=None) + changed - datetime.min) % step
        if size is WindowSize.DAY or unaligned or (changed - offset) % step:
            return None
    return step


def whole_minutes(begin: datetime, end: datetime, tz: ZoneInfo) -> bool:
    """Whether every window that meets [begin, end) starts on a UTC minute."""
    offsets = [_offset(begin - _DAY, tz)]
    for instant, offset in offset_changes(begin - _DAY, end + _DAY, tz):
        if instant.second:
            return False
        offsets.append(offset)
    return not any(offset % timedelta(minutes=1) for offset in offsets)


def offset_changes(
    begin: datetime, end: datetime, tz: ZoneInfo
) -> Iterator[tuple[datetime, timedelta]]:
    """Each change of the zone's offset in (begin, end]: the instant and the new offset."""
    for year in range(begin.astimezone(UTC).year, end.astimezone(UTC).year + 1):
        for instant, offset in _changes_of_year(tz, year):
            if begin < instant <= end:
                yield instant, offset


@lru_cache(maxsize=10_000)
def _changes_of_year(tz: ZoneInfo, year: int) -> tuple[tuple[datetime, timedelta], ...]:
    """The changes of a year in UTC, found by looking at every third day."""
    if tz.key == "UTC":
        return ()
    found = []
    at = datetime(year, 1, 1, tzinfo=UTC) - _SECOND
    last = datetime(year + 1, 1, 1, tzinfo=UTC) - _SECOND
    offset = _offset(at, tz)
    while at < last:
        later = min(at + _STRIDE, last)
        if (changed := _offset(later, tz)) != offset:
            found.append((_change_between(at, later, tz), changed))
            offset = changed
        at = later
    return tuple(found)


def _offset(t: datetime, tz: ZoneInfo) -> timedelta:
    return t.astimezone(tz).utcoffset() or timedelta(0)


def _change_between(before: datetime, after: datetime, tz: ZoneInfo) -> datetime:
    """The first whole second after `before` with the offset of `after`."""
    low = before.replace(microsecond=0)
    old = _offset(before, tz)
    span = int((after - low) / _SECOND) + 1
    first, last = 0, span
    while last - first > 1:
        middle = (first + last) // 2
        if _offset(low + middle * _SECOND, tz) == old:
            first = middle
        else:
            last = middle
    return low + last * _SECOND


def _clock_start(t: datetime, step: timedelta, tz: ZoneInfo) -> datetime:
    offset = _offset(t, tz)
    local = t.replace(tzinfo=None) + offset
    start = t - (local - datetime.min) % step
    return start if _offset(start, tz) == offset else _change_between(start, t, tz)


def _clock_end(start: datetime, step: timedelta, tz: ZoneInfo) -> datetime:
    offset = _offset(start, tz)
    local = start.replace(tzinfo=None) + offset
    end = start + step - (local - datetime.min) % step
    last = end - _SECOND
    return end if _offset(last, tz) == offset else _change_between(start, last, tz)


def _first_date(day: date, size: WindowSize) -> date:
    return day.replace(day=1) if size is WindowSize.MONTH else day


def _next_date(day: date, size: WindowSize) -> date:
    if size is WindowSize.DAY:
        return day + _DAY
    return date(day.year + day.month // 12, day.month % 12 + 1, 1)


def _date_start(day: date, tz: ZoneInfo) -> datetime:
    """The first instant of a local date; for a date that the zone skips, the next date's."""
    midnight = datetime(day.year, day.month, day.day)
    early = midnight.replace(tzinfo=tz).astimezone(UTC)
    if early.astimezone(tz).replace(tzinfo=None) == midnight:
        return early
    # Midnight was skipped: the date starts where the clocks jumped.
    return _change_between(early - _DAY, early, tz)
