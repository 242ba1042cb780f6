"""What readiness and metrics ask the parts of a server."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge

from aggregator.stores.engine import Engine
from aggregator.worker import PartitionStatus
from meterline.db.engine import Database
from meterline.eventlog.port import LogReader
from meterline.kernel.errors import UnavailableError
from meterline.server.health import Check, CheckResult

SinkStatus = Callable[[], Awaitable[Sequence[PartitionStatus]]]
_PROBE = b"\0" * 16_384


def log_check(folder: Path) -> Check:
    """Whether the disk of the event log takes bytes, and is not full or read-only."""

    def probe() -> None:
        file = folder / ".probe"
        try:
            file.write_bytes(_PROBE)
            file.unlink()
        except OSError as error:
            raise UnavailableError(f"the data folder cannot be written: {error.strerror}") from None

    async def check() -> CheckResult:
        await asyncio.to_thread(probe)
        return CheckResult(True, {})

    return check


def database_check(database: Database) -> Check:
    """Whether the relational database answers."""

    async def check() -> CheckResult:
        async with database.read() as conn:
            await conn.exec_driver_sql("SELECT 1")
        return CheckResult(True, {})

    return check


def store_check(engine: Engine) -> Check:
    """Whether the event store answers."""

    async def check() -> CheckResult:
        await engine.query("SELECT 1")
        return CheckResult(True, {})

    return check


def sink_check(status: SinkStatus, log: LogReader) -> Check:
    """Whether acknowledged events reach the store: not ok once the sink stalls."""

    async def check() -> CheckResult:
        partitions = await status()
        return CheckResult(
            not any(one.stalled for one in partitions),
            {
                "lagEvents": sum([await log.count(one.part, one.position) for one in partitions]),
                "lagSeconds": round(max((one.lag_seconds for one in partitions), default=0.0), 3),
                "failing": any(one.last_error is not None for one in partitions),
            },
        )

    return check


class SinkGauges:
    """Where the sink is, as metrics; `refresh` before each scrape."""

    def __init__(self, registry: CollectorRegistry, status: SinkStatus, log: LogReader) -> None:
        self._status = status
        self._log = log
        self._events = Gauge(
            "meterline_sink_lag_events",
            "Events acknowledged and not yet in the store.",
            ["partition"],
            registry=registry,
        )
        self._seconds = Gauge(
            "meterline_sink_lag_seconds",
            "Age of the oldest event that is not yet in the store.",
            ["partition"],
            registry=registry,
        )
        self._stalled = Gauge(
            "meterline_sink_stalled",
            "1 while events wait and none is stored.",
            ["partition"],
            registry=registry,
        )

    async def refresh(self) -> None:
        """Ask the sink."""
        for one in await self._status():
            part = str(one.part)
            self._events.labels(part).set(await self._log.count(one.part, one.position))
            self._seconds.labels(part).set(one.lag_seconds)
            self._stalled.labels(part).set(one.stalled)
