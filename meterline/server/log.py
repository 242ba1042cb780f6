"""The event log of a process: the ends of it that its role needs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client.registry import Collector

from meterline.eventlog.port import LogReader, LogWriter


@dataclass(frozen=True, slots=True)
class Log:
    """The ends that there are; the embedded log is both itself."""

    writer: LogWriter | None
    reader: LogReader | None
    check: Callable[[], Awaitable[None]]
    """`UnavailableError` when it cannot take or give events now."""
    metrics: Collector | None = None
