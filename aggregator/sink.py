"""The sink as a whole: schema, a worker for each partition that this process has, and upkeep."""

import asyncio
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime

import structlog

from aggregator.following import Follower, NoFollower
from aggregator.freshness import Freshness
from aggregator.metrics import SinkMetrics
from aggregator.registry import SeriesRegistry
from aggregator.stores import state
from aggregator.stores.engine import Engine
from aggregator.stores.migrations import migrate
from aggregator.upkeep import Erasure, Upkeep
from aggregator.worker import (
    PartitionSink,
    PartitionStatus,
    SinkOptions,
    SinkParts,
    Step,
    no_step,
)
from meterline.db.engine import Database
from meterline.eventlog.port import LogReader
from meterline.kernel.clock import Clock
from meterline.kernel.ids import new_secret
from meterline.kernel.meters import Meter

__all__ = ["Sink", "migrate"]

log = structlog.get_logger(__name__)


class Sink:
    """Everything that moves events from the log into the store."""

    def __init__(
        self,
        event_log: LogReader,
        engine: Engine,
        database: Database,
        clock: Clock,
        metrics: SinkMetrics,
        options: SinkOptions | None = None,
        follower: Follower | None = None,
        on_step: Step = no_step,
        *,
        registry: SeriesRegistry | None = None,
    ) -> None:
        options = options or SinkOptions()
        follower = follower or NoFollower()
        self._log = event_log
        self._engine = engine
        self._database = database
        self._embedded = database.dialect == "sqlite"
        self._on_step = on_step
        self.registry = registry or SeriesRegistry(database, engine, clock)
        self.upkeep = Upkeep(database, self.registry, follower, clock)
        self.freshness = Freshness(database, event_log, clock, self)
        self.erasure = Erasure(database, self.freshness, clock, self.upkeep)
        self._parts = SinkParts(
            event_log,
            engine,
            database,
            self.registry,
            clock,
            metrics,
            follower,
            options,
            f"{socket.gethostname()}-{new_secret(6)}",
            asyncio.Semaphore(options.plans_at_once),
        )
        self._workers: dict[int, _Running] = {}
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, meters: Iterable[Meter]) -> None:
        """Bring the schema up to date, take up what the last process left, and begin."""
        await migrate(self._engine, self.registry.gate.mutex("event store schema"))
        async with self._database.transaction() as conn:
            await state.check_partitions(conn, self._log.partition_count())
        meters = list(meters)
        await self.registry.start(meters)
        self.upkeep.know(meters)
        await self._log.subscribe(self._changed)
        self._tasks = [
            asyncio.create_task(self.upkeep.run(self._stopping)),
            asyncio.create_task(self.registry.watch(self._stopping)),
        ]

    async def stop(self) -> None:
        """Finish the plans in hand and stop. What is still in the log waits there."""
        self._stopping.set()
        self.upkeep.wake()
        await asyncio.gather(*(one.stop(None) for one in self._workers.values()))
        await asyncio.gather(*self._tasks)

    async def _changed(self, partitions: frozenset[int]) -> None:
        """The log gives us these partitions from now on, and no others."""
        lost = [part for part in self._workers if part not in partitions]
        seconds = self._parts.options.release_seconds
        await asyncio.gather(*(self._workers.pop(part).stop(seconds) for part in lost))
        if self._stopping.is_set():
            return
        for part in sorted(partitions - self._workers.keys()):
            worker = PartitionSink(part, self._parts, self._on_step)
            if self._embedded:
                # Before anybody appends: a log that was lost must not give offsets out again.
                await worker.take()
            self._workers[part] = _Running(worker)

    def has_all(self) -> bool:
        """Whether this process applies every partition itself, and no other one can."""
        return self._embedded and len(self._workers) == self._log.partition_count()

    async def reached(self, timeout_seconds: float) -> bool:
        """See `LocalSink.reached`."""
        workers = [one.worker for one in self._workers.values()]
        ends = [await self._log.end(worker.part) for worker in workers]
        reached = [
            worker.progress.wait_visible(end, timeout_seconds)
            for worker, end in zip(workers, ends, strict=True)
        ]
        return all(await asyncio.gather(*reached))

    async def reached_until(self) -> datetime:
        """See `LocalSink.reached_until`."""
        return min([await one.worker.progress.visible_until() for one in self._workers.values()])

    async def status(self) -> Sequence[PartitionStatus]:
        """Where the sink is, by partition, as far as they are this process's."""
        return [await one.worker.progress.status() for _, one in sorted(self._workers.items())]

    async def wait_visible(self, timeout_seconds: float) -> bool:
        """Wait until everything that the log has accepted by now is in the store."""
        return await self.freshness.wait_visible(timeout_seconds)

    async def visible_until(self) -> datetime:
        """Every event that was acknowledged before this instant is in the store."""
        return await self.freshness.visible_until()

    async def purge(self, namespace: str, subject: str) -> None:
        """See `Erasure.purge`."""
        await self.erasure.purge(namespace, subject)


class _Running:
    """A worker at work."""

    def __init__(self, worker: PartitionSink) -> None:
        self.worker = worker
        self._stopping = asyncio.Event()
        self._task = asyncio.create_task(worker.run(self._stopping))

    async def stop(self, seconds: float | None) -> None:
        """Let it finish its plan, but for no longer than that; what it leaves is done again."""
        self._stopping.set()
        if self.worker.idle:
            self._task.cancel()
        done, _ = await asyncio.wait({self._task}, timeout=seconds)
        if not done:
            log.warning("a partition was let go in mid-plan", partition=self.worker.part)
            self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
