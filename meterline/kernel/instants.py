"""Instants as text: RFC 3339, kept to the microsecond, always UTC inside."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from meterline.kernel.errors import ValidationError

EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Instants are in [EARLIEST, LATEST]; those of events are before LATEST."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,30}))?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def parse_instant(text: str) -> datetime:
    """The instant that an RFC 3339 text names; digits beyond the microsecond are dropped."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValidationError("must be an RFC 3339 time, such as 2026-01-31T00:00:00Z")
    day, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone
    try:
        local = datetime.fromisoformat(f"{day}T{clock}.{(fraction or '')[:6]:0<6}{zone}")
        instant = local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValidationError("is not a time of the calendar") from None
    if not EARLIEST <= instant <= LATEST:
        raise ValidationError(f"must be between {EARLIEST.year} and {LATEST.year}")
    return instant


def format_instant(instant: datetime) -> str:
    """RFC 3339 in UTC, with as many digits of a second as it needs."""
    text = instant.astimezone(UTC).replace(tzinfo=None).isoformat()
    return (text.rstrip("0") if "." in text else text) + "Z"


def format_micros(micros: int) -> str:
    """The same of microseconds since 1970."""
    seconds, fraction = divmod(micros, 1_000_000)
    text = _second(seconds)
    return f"{text}.{fraction:06d}".rstrip("0") + "Z" if fraction else f"{text}Z"


@lru_cache(4_096)
def _second(seconds: int) -> str:
    # Instants that are written together are mostly of the same few seconds.
    return (EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()


def to_micros(instant: datetime) -> int:
    """Microseconds since 1970, exactly."""
    return (instant - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The instant that many microseconds after 1970."""
    return EPOCH + timedelta(microseconds=micros)
