"""A meter query as a frozen tree, checked against its meter; SQL comes last. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from aggregator.filters import Filter, FilterLimits, parse_filter
from meterline.kernel.errors import FieldError, ValidationError
from meterline.kernel.instants import EARLIEST, LATEST, parse_instant
from meterline.kernel.meters import Meter, is_storable
from meterline.kernel.windows import WindowSize, load_zone

SUBJECT = "subject"
_UTC = ZoneInfo("UTC")
_SECONDS = {
    WindowSize.MINUTE: 60,
    WindowSize.HOUR: 3_600,
    WindowSize.DAY: 86_400,
    WindowSize.MONTH: 2_592_000,
}


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """How large a query and its answer may be."""

    max_subjects: int = 100
    """Subjects in one query."""
    max_windows: int = 100_000
    """Windows of one query."""
    max_rows: int = 100_000
    """Rows of one answer."""
    max_listed: int = 10_000
    """Subjects, or values of a groupBy key, in one list."""
    filters: FilterLimits = field(default_factory=FilterLimits)


@dataclass(frozen=True, slots=True)
class QueryInput:
    """A query as a caller spells it: nothing is checked yet.

    `filters` maps groupBy keys to a text, a list of texts, or an object of operators.
    """

    begin: str | None = None
    end: str | None = None
    window_size: str | None = None
    time_zone: str | None = None
    subjects: Sequence[str] = ()
    group_by: Sequence[str] = ()
    filters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Half-open; None is without a border."""

    begin: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class MeterQuery:
    """What to answer: values per window (one for all time without `window`) and group.

    Only events at or after `since` count: that is the range's begin or the meter's `event_from`,
    whichever is later.
    """

    range: TimeRange = TimeRange()
    since: datetime | None = None
    window: WindowSize | None = None
    tz: ZoneInfo = _UTC
    subjects: tuple[str, ...] = ()
    by_subject: bool = False
    group_by: tuple[str, ...] = ()
    filters: tuple[tuple[str, Filter], ...] = ()


@dataclass(frozen=True, slots=True)
class QueryRow:
    """The value of one window and group."""

    window_start: datetime
    window_end: datetime
    subject: str | None
    group_by: Mapping[str, str]
    value: Decimal


def row_order(row: QueryRow) -> tuple[datetime, str, tuple[str, ...]]:
    """Answers are sorted by window, then subject, then groupBy values."""
    return row.window_start, row.subject or "", tuple(row.group_by.values())


def build_query(meter: Meter, given: QueryInput, limits: QueryLimits) -> MeterQuery:
    """The query that `given` spells for `meter`; `ValidationError` says what is wrong with it."""
    span = parse_range(given.begin, given.end)
    window = _window(given.window_size)
    if window is not None:
        check_window_count(span, window, limits)
    subjects = _subjects(given.subjects, limits)
    keys = tuple(dict.fromkeys(given.group_by))
    for key in keys:
        if key != SUBJECT and key not in meter.group_by:
            raise _fault("groupBy", f"invalid group by: {key[:64]}", meter.group_by)
    return MeterQuery(
        range=span,
        since=later(span.begin, meter.event_from),
        window=window,
        tz=_zone(given.time_zone),
        subjects=subjects,
        by_subject=bool(subjects) or SUBJECT in keys,
        group_by=tuple(key for key in keys if key != SUBJECT),
        filters=_filters(meter, given.filters, limits),
    )


def parse_range(
    begin: str | None, end: str | None, names: tuple[str, str] = ("from", "to")
) -> TimeRange:
    """The range between two RFC 3339 texts; it must not be empty."""
    span = TimeRange(_instant(names[0], begin), _instant(names[1], end))
    if span.begin is not None and span.end is not None and span.begin >= span.end:
        raise _fault(names[0], f"must be before {names[1]}")
    return span


def check_window_count(span: TimeRange, window: WindowSize, limits: QueryLimits) -> None:
    """Refuse a range of too many windows; one without a border is limited by its rows."""
    if span.begin is None or span.end is None:
        return
    count = (span.end - span.begin).total_seconds() / _SECONDS[window]
    if count > limits.max_windows:
        raise _fault(
            "windowSize",
            f"from and to are more than {limits.max_windows} windows apart: "
            "take larger windows or a shorter range",
        )


def later(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later of two instants; None is before all others."""
    return max((t for t in (one, other) if t is not None), default=None)


def utc_floor(t: datetime) -> datetime:
    """The UTC minute that holds `t`."""
    return t.astimezone(UTC).replace(second=0, microsecond=0)


def _instant(where: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        instant = parse_instant(text)
    except ValidationError as error:
        raise _fault(where, error.detail) from None
    # Nothing is stored outside, and windows around the borders stay inside the calendar.
    return min(max(instant, EARLIEST), LATEST)


def _window(text: str | None) -> WindowSize | None:
    if text is None:
        return None
    if text not in WindowSize.__members__:
        raise _fault("windowSize", f"must be one of {', '.join(WindowSize)}")
    return WindowSize(text)


def _zone(name: str | None) -> ZoneInfo:
    if name is None:
        return _UTC
    try:
        return load_zone(name)
    except ValidationError as error:
        raise _fault("windowTimeZone", error.detail) from None


def _subjects(given: Sequence[str], limits: QueryLimits) -> tuple[str, ...]:
    subjects = tuple(dict.fromkeys(given))
    if len(subjects) > limits.max_subjects:
        raise _fault("subject", f"more than {limits.max_subjects} subjects")
    for subject in subjects:
        if len(subject) > limits.filters.max_text_length or not is_storable(subject):
            raise _fault("subject", "is too long, or holds NUL or half a surrogate pair")
    return subjects


def _filters(
    meter: Meter, given: Mapping[str, Any], limits: QueryLimits
) -> tuple[tuple[str, Filter], ...]:
    for key in given:
        if key not in meter.group_by:
            raise _fault("filterGroupBy", f"invalid group by filter: {key[:64]}", meter.group_by)
    return tuple(
        (key, parse_filter(value, f"filterGroupBy.{key}", limits.filters))
        for key, value in given.items()
    )


def _fault(where: str, reason: str, known: Iterable[str] | None = None) -> ValidationError:
    if known is not None:
        reason += f"; the meter has {', '.join(sorted(known)) or 'no groupBy keys'}"
    return ValidationError(f"{where}: {reason}", errors=[FieldError(where, reason)])
