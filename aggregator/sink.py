"""The sink as a whole: schema, recovery, one worker a partition, back-fills, and erasure."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import numpy as np
import structlog

from aggregator.backfill import Backfill
from aggregator.dedupe import SeenKeys
from aggregator.following import Follower, NoFollower
from aggregator.metrics import SinkMetrics
from aggregator.registry import SeriesRegistry
from aggregator.stores import state
from aggregator.stores.engine import Engine
from aggregator.stores.migrations import migrate
from aggregator.worker import PartitionSink, PartitionStatus, SinkOptions, Step, no_step
from meterline.db.engine import Database
from meterline.eventlog.port import EventLog
from meterline.kernel.clock import Clock
from meterline.kernel.errors import UnavailableError
from meterline.kernel.meters import Meter

log = structlog.get_logger(__name__)

_KEYS_A_SLICE = 50_000
_CATCH_UP_SECONDS = 30.0


class Sink:
    """Everything that moves events from the log into the store."""

    def __init__(
        self,
        event_log: EventLog,
        engine: Engine,
        database: Database,
        clock: Clock,
        metrics: SinkMetrics,
        options: SinkOptions | None = None,
        follower: Follower | None = None,
        on_step: Step = no_step,
    ) -> None:
        self._log = event_log
        self._engine = engine
        self._database = database
        self._clock = clock
        self._follower = follower or NoFollower()
        self._backfill = Backfill(engine)
        self.registry = SeriesRegistry(database, self._backfill)
        self.seen = SeenKeys()
        self._workers = {
            part: PartitionSink(
                part,
                event_log,
                engine,
                database,
                self.registry,
                self.seen,
                clock,
                options or SinkOptions(),
                metrics,
                self._follower,
                on_step,
            )
            for part in range(event_log.partition_count())
        }
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, meters: Iterable[Meter]) -> None:
        """Bring the schema up to date, take up what the last process left, and begin."""
        await migrate(self._engine)
        for worker in self._workers.values():
            await worker.start()
        await self.registry.start(meters, self._planned, self._applied)
        for namespace, subject in await self._unfinished_purges():
            await self._erase(namespace, subject)
        self._tasks = [asyncio.create_task(self._learn_keys())]
        self._tasks += [asyncio.create_task(self.registry.run(self._stopping))]
        self._tasks += [
            asyncio.create_task(worker.run(self._stopping)) for worker in self._workers.values()
        ]

    async def stop(self) -> None:
        """Finish the plan in hand and stop. What is still in the log waits there."""
        self._stopping.set()
        self.registry.wake()
        await asyncio.gather(*self._tasks)

    def _planned(self) -> Mapping[int, int]:
        return {part: worker.planned_through for part, worker in self._workers.items()}

    def _applied(self) -> Mapping[int, int]:
        return {part: worker.position for part, worker in self._workers.items()}

    async def status(self) -> Sequence[PartitionStatus]:
        """Where the sink is, by partition."""
        return [await worker.status() for worker in self._workers.values()]

    async def wait_visible(self, timeout_seconds: float) -> bool:
        """Wait until everything that the log has accepted by now is in the store."""
        ends = {part: await self._log.end(part) for part in self._workers}
        reached = [
            self._workers[part].wait_visible(end, timeout_seconds) for part, end in ends.items()
        ]
        return all(await asyncio.gather(*reached))

    async def visible_until(self) -> datetime:
        """Every event that was acknowledged before this instant is in the store."""
        return min([await worker.visible_until() for worker in self._workers.values()])

    async def purge(self, namespace: str, subject: str) -> None:
        """Erase a subject's usage for good: events, points and totals, now and on disk.

        Events that were accepted before the call are erased even if they are still in the log;
        `UnavailableError` while the sink is too far behind for that.
        """
        if not await self.wait_visible(_CATCH_UP_SECONDS):
            raise UnavailableError("accepted events are still to be stored; try again later")
        async with self._database.transaction() as conn:
            await state.request_purge(conn, namespace, subject, self._clock())
        await self._erase(namespace, subject)

    async def _erase(self, namespace: str, subject: str) -> None:
        async with self.registry.exclusive:
            series = [one.id for one in self.registry.live() if one.namespace == namespace]
            await self._backfill.erase(namespace, subject, series)
            async with self._database.transaction() as conn:
                await self._follower.erase(conn, namespace, subject)
                await state.finish_purge(conn, namespace, subject)

    async def _unfinished_purges(self) -> Sequence[tuple[str, str]]:
        async with self._database.read() as conn:
            return await state.load_purges(conn)

    async def _learn_keys(self) -> None:
        """Fill the filter of seen keys from the store; until then every key is looked up."""
        total = int((await self._engine.query("SELECT count() FROM keys"))[0][0])
        slices = max(1, -(-total // _KEYS_A_SLICE))
        bounds = [(1 << 128) * number // slices for number in range(slices)] + [1 << 128]
        for low, high in zip(bounds[:-1], bounds[1:], strict=True):
            if self._stopping.is_set():
                return
            raw = await self._engine.fetch(
                "SELECT toUInt64(bitAnd(h, toUInt128(18446744073709551615))) FROM keys"
                " WHERE h >= {low:UInt128} AND h <= {high:UInt128}",
                "RowBinary",
                {"low": str(low), "high": str(high - 1)},
            )
            await asyncio.to_thread(self.seen.add, np.frombuffer(raw, dtype="<u8"))
        self.seen.complete = True
