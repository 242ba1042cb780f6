"""How much notifications do at a time, and the limits of what people may make."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

Step = Callable[[str], Awaitable[None]]
"""Called after each named step; fault tests stop the process there."""


async def no_step(_name: str) -> None:
    """The default: no fault is injected."""


@dataclass(frozen=True, slots=True)
class NotificationOptions:
    """How the worker works."""

    timeout_seconds: float = 20.0
    """How long a receiver may take to answer."""
    concurrency: int = 32
    """Messages on their way at the same time, of this process."""
    endpoint_concurrency: int = 4
    """Of these, to one channel."""
    poll_seconds: float = 0.5
    """How often to look for what is due."""
    disable_after_seconds: float = 5 * 86_400.0
    """A channel without a success for so long, of which every attempt failed, is disabled."""
    retention_days: int = 90
    """How long events are kept."""
    rejected_seconds: float = 60.0
    """How long rejected events are counted before one event tells of all."""

    look_seconds: float = 3_600.0
    """How often an entitlement is looked at although nothing was told of it."""
    untold_seconds: float = 60.0
    """The same, of one whose usage cannot be told: its meter does not add up."""

    @property
    def lease(self) -> timedelta:
        """How long a claim holds: longer than an attempt can take."""
        return timedelta(seconds=self.timeout_seconds + 40)


@dataclass(frozen=True, slots=True)
class NotificationLimits:
    """How much of everything a namespace may have."""

    max_channels: int = 100
    max_rules: int = 100
    max_channels_of_rule: int = 5
    max_features_of_rule: int = 100
    max_thresholds: int = 10
    max_headers: int = 32
    max_url_length: int = 2_048
    max_page: int = 1_000
    old_secret_seconds: float = 86_400.0
    """How long messages are also signed with a secret that was replaced."""
