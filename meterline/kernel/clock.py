"""The only place that reads the time. Everything else takes `now` as an argument."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Answers the current instant, aware and in UTC."""


def system_clock() -> datetime:
    """The machine's clock, in UTC, to the microsecond."""
    return datetime.now(UTC)
