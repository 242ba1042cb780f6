"""Several sinks over one log, one store and one database, as if each were a process of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.checkup import check_store
from aggregator.following import NoFollower, Settling
from aggregator.freshness import Freshness
from aggregator.metrics import SinkMetrics
from aggregator.registry import SeriesRegistry
from aggregator.scratch import FIND_SCRATCH
from aggregator.sink import Sink
from aggregator.stores import series as stored
from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.worker import SinkOptions, Step, no_step
from meterline.db.engine import Database
from meterline.db.locks import Gate
from meterline.kernel.clock import system_clock
from meterline.kernel.meters import Meter
from meterline.kernel.usage import Usage
from tests.support.database import opened
from tests.support.engines import store_at
from tests.support.partitioned import PartitionedLog

OPTIONS = SinkOptions(
    max_plan_events=40, linger_seconds=0.0, retry_seconds=0.02, release_seconds=0.2
)


class Telling(NoFollower):
    """Remembers what it was told, as a live row would: only what was committed."""

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.settled_events: list[tuple[str, str]] = []
        self.series_followed: list[int] = []

    async def series(self, conn: AsyncConnection) -> Sequence[int]:
        return self.series_followed

    async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
        for usage in usages:
            self.counts[usage.series] = self.counts.get(usage.series, 0) + usage.count

    async def settling(self, conn: AsyncConnection, events: Sequence[tuple[str, str]]) -> Settling:
        async def settle(_conn: AsyncConnection) -> None:
            self.settled_events += events

        return settle


@dataclass
class Sinks:
    """Sinks at work, and a freshness of a process that has none."""

    log: PartitionedLog
    engine: ClickHouseEngine
    databases: Sequence[Database]
    sinks: Sequence[Sink]
    freshness: Freshness
    follower: Telling

    async def settle(self) -> None:
        """Wait until all that was sent is in the store."""
        assert await self.freshness.wait_visible(60.0), [await one.status() for one in self.sinks]

    async def totals(self) -> dict[int, tuple[str, int]]:
        """Sum and count of each live series, which points and totals must agree on."""
        live = ", ".join(str(one.id) for one in self.sinks[0].registry.live()) or "0"
        of_points = await self.engine.query(
            "SELECT series, toString(sum(toDecimal256(value, 18))), count() FROM points"
            f" WHERE series IN ({live}) GROUP BY series"
        )
        of_totals = await self.engine.query(
            "SELECT series, toString(sum(sum)), sum(count) FROM totals"
            f" WHERE series IN ({live}) GROUP BY series"
        )
        assert sorted(of_points) == sorted(of_totals)
        return {series: (total, count) for series, total, count in of_points}

    async def right(self) -> bool:
        """Whether the store agrees with itself in every way."""
        await self.sinks[0].registry.reload()
        found = await check_store(self.engine, self.sinks[0].registry.live())
        for one in found:
            print(one)
        return not found

    async def filled(self) -> None:
        """Wait until every series is back-filled and every dropped one is gone."""

        async def done() -> bool:
            async with self.databases[0].read() as conn:
                found = await stored.load_series(conn)
            return all(one.series.state == "ready" for one in found)

        await until(done, "series are back-filled")
        await self.sinks[0].registry.reload()

    async def empty_scratch(self) -> None:
        """What a restart of the engine does to tables in memory."""
        for (name,) in await self.engine.query(FIND_SCRATCH):
            await self.engine.execute(f"TRUNCATE TABLE IF EXISTS {name}")


async def until(done: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition, which may be asynchronous."""
    async with asyncio.timeout(seconds):
        while True:
            answer = done()
            if await answer if asyncio.iscoroutine(answer) else answer:
                return
            await asyncio.sleep(0.01)
    raise AssertionError(what)


@asynccontextmanager
async def running_sinks(
    path: Path,
    url: str,
    log: PartitionedLog,
    meters: Iterable[Meter],
    *,
    steps: Sequence[Step] = (no_step, no_step),
    options: SinkOptions = OPTIONS,
) -> AsyncIterator[Sinks]:
    """As many sinks as there are `steps`; no one has a partition until the test assigns some."""
    meters = list(meters)
    follower = Telling()
    async with AsyncExitStack() as stack:
        engine = ClickHouseEngine(store_at(path / "store"), handles=8)
        stack.push_async_callback(engine.close)
        sqlite = url.startswith("sqlite")
        shared = await stack.enter_async_context(opened(url))
        gate = Gate(shared) if sqlite else None
        sinks, databases = [], []
        for step in steps:
            database = shared if sqlite else await stack.enter_async_context(opened(url))
            registry = SeriesRegistry(database, engine, system_clock, gate=gate)
            sink = Sink(
                log.reader(), engine, database, system_clock, SinkMetrics(CollectorRegistry()),
                options, follower, step, registry=registry,
            )  # fmt: skip
            await sink.start(meters)
            stack.push_async_callback(sink.stop)
            sinks.append(sink)
            databases.append(database)
        freshness = Freshness(databases[0], log.readers[0], system_clock)
        yield Sinks(log, engine, databases, sinks, freshness, follower)
