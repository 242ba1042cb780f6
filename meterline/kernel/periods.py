"""Calendar intervals, and the periods that an anchor and an interval cut time into.

The n-th occurrence is always computed from the anchor, never from the one before it: from
31 January, months fall on 28 February and then on 31 March. Years, months, weeks and days are
counted on the calendar of a time zone (UTC when none is named), hours and less are exact time.
When the clocks skip the local time of an occurrence it is as much later as they skip; when they
repeat it, it is the first of the two.
"""

import re
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from meterline.kernel.errors import ValidationError

NEVER = datetime.max.replace(tzinfo=UTC)
"""Later than every instant; what lies beyond the calendar is then."""
_ALWAYS = datetime.min.replace(tzinfo=UTC)

_MAX_YEARS = 1000
_MEAN_MONTH = timedelta(days=365.2425) / 12
_ISO = re.compile(
    r"P(?=\d|T\d)(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?"
    r"(?:T(?=\d)(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:[.,](\d{1,6}))?S)?)?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class Interval:
    """A length on the calendar: months and days as the calendar has them, and exact time."""

    months: int = 0
    days: int = 0
    time: timedelta = timedelta(0)

    @property
    def mean(self) -> timedelta:
        """Its length with months of average length."""
        return self.months * _MEAN_MONTH + timedelta(days=self.days) + self.time


_NAMED = {
    "DAY": Interval(days=1),
    "WEEK": Interval(days=7),
    "MONTH": Interval(months=1),
    "YEAR": Interval(months=12),
}
_NAMES = {interval: name for name, interval in _NAMED.items()}


def parse_interval(text: str) -> Interval:
    """The interval of DAY, WEEK, MONTH, YEAR or an ISO 8601 duration, such as P1M or PT12H.

    Only seconds may have a fraction: half a month has no length.
    """
    if text in _NAMED:
        return _NAMED[text]
    match = _ISO.fullmatch(text) if len(text) <= 64 else None
    if match is None:
        raise ValidationError("must be DAY, WEEK, MONTH, YEAR or an ISO 8601 duration such as P1M")
    fraction = (match.group(8) or "").ljust(6, "0")
    years, months, weeks, days, hours, minutes, seconds = (
        int(part or 0) for part in match.groups()[:7]
    )
    try:
        time = timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=int(fraction))
        interval = Interval(years * 12 + months, weeks * 7 + days, time)
        mean = interval.mean
    except OverflowError:
        mean = timedelta.max
    if mean > _MAX_YEARS * 12 * _MEAN_MONTH:
        raise ValidationError(f"must be at most {_MAX_YEARS} years")
    if not mean:
        raise ValidationError("must be longer than nothing")
    return interval


def format_interval(interval: Interval) -> str:
    """The interval as an ISO 8601 duration."""
    years, months = divmod(interval.months, 12)
    weeks, days = divmod(interval.days, 7) if interval.days % 7 == 0 else (0, interval.days)
    minutes, seconds = divmod(interval.time, timedelta(minutes=1))
    hours, minutes = divmod(minutes, 60)
    exact = f"{seconds.seconds}.{seconds.microseconds:06d}".rstrip("0").rstrip(".")
    parts = [(years, "Y"), (months, "M"), (weeks, "W"), (days, "D")]
    date = "".join(f"{number}{unit}" for number, unit in parts if number)
    clock = "".join(f"{number}{unit}" for number, unit in ((hours, "H"), (minutes, "M")) if number)
    clock += f"{exact}S" if seconds else ""
    return f"P{date}T{clock}" if clock else f"P{date}"


def interval_name(interval: Interval) -> str | None:
    """DAY, WEEK, MONTH or YEAR, when the interval is one of them."""
    return _NAMES.get(interval)


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time with its start and without its end."""

    start: datetime
    end: datetime

    def __contains__(self, t: datetime) -> bool:
        return self.start <= t < self.end


@dataclass(frozen=True, slots=True)
class Recurrence:
    """Instants at every interval before and after an anchor, on the calendar of a zone."""

    anchor: datetime
    interval: Interval
    zone: ZoneInfo | None = None

    def occurrence(self, n: int) -> datetime:
        """The n-th instant, in UTC: the anchor is the 0th, those before it are negative."""
        return shift(self.anchor, self.interval, n, self.zone)

    def index(self, t: datetime) -> int:
        """The number of the last occurrence that is not after `t`."""
        n = (t - self.anchor) // self.interval.mean
        while self.occurrence(n) > t:
            n -= 1
        while self.occurrence(n + 1) <= t:
            n += 1
        return n

    def period(self, t: datetime) -> Period:
        """The period that holds `t`: from one occurrence to the next."""
        n = self.index(t)
        return Period(self.occurrence(n), self.occurrence(n + 1))

    def between(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """The occurrences in (after, until], in order, each instant once."""
        if after >= until:
            return
        n = self.index(after)
        while (instant := self.occurrence(n := n + 1)) <= until:
            # Two local times fall together where a zone skips a whole day.
            if instant > after:
                yield instant
                after = instant


def shift(
    start: datetime, interval: Interval, count: int, zone: ZoneInfo | None = None
) -> datetime:
    """`count` intervals after `start` (before it when negative), in UTC."""
    if not count:
        return start.astimezone(UTC)
    days = timedelta(days=interval.days)
    try:
        if zone is None:
            moved = _add_months(start.astimezone(UTC), interval.months * count)
            return moved + (days + interval.time) * count
        local = start.astimezone(zone).replace(tzinfo=None)
        local = _add_months(local, interval.months * count) + days * count
        # Without a fold, a skipped time is read with the offset before the change, so it moves on.
        moved = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
        return moved + interval.time * count
    except (OverflowError, ValueError):
        return NEVER if count > 0 else _ALWAYS


def _add_months(t: datetime, months: int) -> datetime:
    if not months:
        return t
    years, month = divmod(t.month - 1 + months, 12)
    year, month = t.year + years, month + 1
    if t.day <= 28:
        return t.replace(year=year, month=month)
    return t.replace(year=year, month=month, day=min(t.day, monthrange(year, month)[1]))
