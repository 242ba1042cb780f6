"""What readiness and metrics ask the parts of a server."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge

from aggregator.freshness import UNKNOWN
from aggregator.stores.engine import Engine
from aggregator.worker import PartitionStatus
from meterline.db.engine import Database
from meterline.eventlog.port import LogReader
from meterline.kernel.clock import Clock
from meterline.kernel.errors import MeterlineError
from meterline.server.health import Check, CheckResult
from meterline.server.log import Log

SinkStatus = Callable[[], Awaitable[Sequence[PartitionStatus]]]


def log_check(log: Log) -> Check:
    """Whether the event log takes and gives events."""

    async def check() -> CheckResult:
        await log.check()
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


def freshness_check(
    visible_until: Callable[[], Awaitable[datetime]], stalled_after_seconds: float, clock: Clock
) -> Check:
    """Whether what is answered is recent: not ok once sinks, wherever they run, stall."""
    started = clock()

    async def check() -> CheckResult:
        lag = _lag(clock(), await visible_until(), started)
        return CheckResult(lag <= stalled_after_seconds, {"lagSeconds": round(lag, 3)})

    return check


def _lag(now: datetime, until: datetime, started: datetime) -> float:
    """Seconds of lag; while nothing is known, those since the process asked first."""
    since = started if until == UNKNOWN else until
    return max((now - since).total_seconds(), 0.0)


class FreshnessGauge:
    """How old answers are, as a metric; `refresh` before each scrape."""

    def __init__(
        self,
        registry: CollectorRegistry,
        visible_until: Callable[[], Awaitable[datetime]],
        clock: Clock,
    ) -> None:
        self._visible_until = visible_until
        self._clock = clock
        self._started = clock()
        self._gauge = Gauge(
            "meterline_freshness_lag_seconds",
            "Age of the oldest acknowledged event that answers may not have yet.",
            registry=registry,
        )

    async def refresh(self) -> None:
        """Ask; not a number while nobody can say."""
        try:
            lag = _lag(self._clock(), await self._visible_until(), self._started)
        except MeterlineError:
            lag = float("nan")
        self._gauge.set(lag)


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
        """Ask the sink, which may have other partitions than before."""
        for gauge in (self._events, self._seconds, self._stalled):
            gauge.clear()
        for one in await self._status():
            part = str(one.part)
            self._events.labels(part).set(await self._log.count(one.part, one.position))
            self._seconds.labels(part).set(one.lag_seconds)
            self._stalled.labels(part).set(one.stalled)
