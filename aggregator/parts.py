"""What the workers of a sink are given, and what they say of themselves."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aggregator.following import Follower
from aggregator.metrics import SinkMetrics
from aggregator.registry import SeriesRegistry
from aggregator.stores.engine import Engine
from meterline.db.engine import Database
from meterline.eventlog.port import LogReader
from meterline.kernel.clock import Clock

Step = Callable[[str], Awaitable[None]]
"""Called after each named step of a plan; fault tests stop the process there."""

STEPS = (
    "read", "planned", "staged", "judged", "events", "keys", "points", "faults", "committed",
    "trimmed",
)  # fmt: skip

BACKFILL = "backfill"
"""The lock of whoever moves stored events into series, or makes totals anew."""


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How the sink batches and when it counts as stalled."""

    max_plan_events: int = 100_000
    linger_seconds: float = 0.2
    """How long a small plan may wait for more events, counted from the plan before."""
    retry_seconds: float = 1.0
    """The wait after a failed plan; doubled up to 30 s while it keeps failing."""
    stalled_after_seconds: float = 30.0
    """Without progress for so long although events wait, the sink is not ready."""
    trim_log: bool = True
    plans_at_once: int = 2
    """How many plans one process may be at, each with its events in memory: of as many partitions,
    or of one and the next of the same."""
    release_seconds: float = 5.0
    """How long a partition that goes to another process may take to finish its plan."""
    redo_within_plans: int = 5_000
    """A plan is applied again by its tokens as long as no more plans than these were made since.

    At most half of what the store's tables remember (`Layout.deduplication_window`).
    """


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Where the sink is in one partition. Lag is measured from what the log has accepted."""

    part: int
    position: int
    end: int
    lag_seconds: float
    stalled: bool
    last_error: str | None


@dataclass(frozen=True, slots=True)
class SinkParts:
    """What all workers of a process share."""

    log: LogReader
    engine: Engine
    database: Database
    registry: SeriesRegistry
    clock: Clock
    metrics: SinkMetrics
    follower: Follower
    options: SinkOptions
    owner: str
    plans: asyncio.Semaphore


async def no_step(_name: str) -> None:
    """The default: no fault is injected."""
