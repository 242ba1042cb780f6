"""Providers' own clients that ask before each call, and record what it used."""

from meterline_sdk._async.clients import (
    AsyncTrackedAnthropic,
    AsyncTrackedCohere,
    AsyncTrackedGoogle,
    AsyncTrackedOpenAI,
)
from meterline_sdk._sync.clients import (
    TrackedAnthropic,
    TrackedCohere,
    TrackedGoogle,
    TrackedOpenAI,
)

__all__ = [
    "AsyncTrackedAnthropic",
    "AsyncTrackedCohere",
    "AsyncTrackedGoogle",
    "AsyncTrackedOpenAI",
    "TrackedAnthropic",
    "TrackedCohere",
    "TrackedGoogle",
    "TrackedOpenAI",
]
