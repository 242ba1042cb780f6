"""Small batches of usage, and a sink to put them through."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import select

from aggregator.following import Follower
from aggregator.metrics import SinkMetrics
from aggregator.sink import Sink
from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.stores.state import dead_letters
from aggregator.worker import SinkOptions, Step, no_step
from meterline.db.engine import Database
from meterline.eventlog.memory import MemoryLog
from meterline.eventlog.port import EventLog
from meterline.kernel.clock import Clock, system_clock
from meterline.kernel.meters import Aggregation, Meter
from tests.support.engines import store_at

INGESTED = datetime(2026, 1, 15, 12, tzinfo=UTC)


def canonical(
    id: str,
    data: str | None = None,
    *,
    subject: str = "alice",
    type: str = "llm.usage",
    source: str = "/app",
    time: str | None = None,
    **more: str,
) -> dict[str, Any]:
    """A canonical event; `data` is raw JSON text, an object or not."""
    event: dict[str, Any] = {"id": id, "source": source, "type": type, "subject": subject, **more}
    if time is not None:
        event["time"] = time
    if data is not None:
        event["data" if data.lstrip().startswith("{") else "_raw"] = data
    return event


def encode(events: Iterable[dict[str, Any]]) -> bytes:
    """A batch as the ingest gateway writes it, with `data` objects verbatim."""
    parts = []
    for event in events:
        data = event.get("data")
        text = json.dumps({key: value for key, value in event.items() if key != "data"})
        parts.append(text if data is None else f'{text[:-1]}, "data": {data}}}')
    return f"[{','.join(parts)}]".encode()


async def send(
    log: EventLog, events: Sequence[dict[str, Any]], *, namespace: str = "default"
) -> int:
    """Append one batch to the log."""
    offset = await log.append(namespace, INGESTED, len(events), encode(events))
    assert offset is not None
    return offset


def meter(
    slug: str,
    aggregation: Aggregation = Aggregation.SUM,
    value: str | None = "$.tokens",
    *,
    type: str = "llm.usage",
    namespace: str = "default",
    **group_by: str,
) -> Meter:
    """A meter over `tokens`, unless said otherwise."""
    value = None if aggregation is Aggregation.COUNT else value
    return Meter(
        id=f"id-{namespace}-{slug}",
        namespace=namespace,
        slug=slug,
        name=slug,
        description=None,
        aggregation=aggregation,
        event_type=type,
        value_property=value,
        group_by=group_by,
        event_from=None,
        metadata={},
        created_at=INGESTED,
        updated_at=INGESTED,
    )


@dataclass
class Rig:
    """A running sink on a real engine and database."""

    log: EventLog
    engine: ClickHouseEngine
    database: Database
    sink: Sink

    async def settle(self) -> None:
        """Wait until all that was sent is in the store."""
        assert await self.sink.wait_visible(30.0)

    async def filled(self) -> None:
        """Wait until every series is back-filled."""
        async with asyncio.timeout(30):
            await self.sink.upkeep.settled()
        assert all(series.state == "ready" for series in self.sink.registry.live())

    async def dead_letters(self) -> list[int]:
        """The offsets in the dead-letter list."""
        async with self.database.read() as conn:
            rows = await conn.execute(select(dead_letters.c.off).order_by(dead_letters.c.off))
            return list(rows.scalars())

    async def totals(self) -> dict[int, tuple[str, int]]:
        """Sum and count of each series, which points and totals must agree on."""
        of_points = await self.engine.query(
            "SELECT series, toString(sum(toDecimal256(value, 18))), count() FROM points"
            " GROUP BY series"
        )
        of_totals = await self.engine.query(
            "SELECT series, toString(sum(sum)), sum(count) FROM totals GROUP BY series"
        )
        assert sorted(of_points) == sorted(of_totals)
        return {series: (total, count) for series, total, count in of_points}


@asynccontextmanager
async def running_sink(
    path: Path,
    meters: Iterable[Meter] = (),
    *,
    log: EventLog | None = None,
    on_step: Step = no_step,
    options: SinkOptions | None = None,
    follower: Follower | None = None,
    clock: Clock = system_clock,
) -> AsyncIterator[Rig]:
    """A sink over `path`, stopped and closed at the end."""
    database = Database.open(f"sqlite:///{path}/state.db")
    await database.migrate()
    engine = ClickHouseEngine(store_at(path / "store"))
    event_log = log or MemoryLog()
    sink = Sink(
        event_log,
        engine,
        database,
        clock,
        SinkMetrics(CollectorRegistry()),
        options or SinkOptions(linger_seconds=0.0, retry_seconds=0.01, trim_log=False),
        follower,
        on_step,
    )
    try:
        await sink.start(meters)
        yield Rig(event_log, engine, database, sink)
    finally:
        await sink.stop()
        await engine.close()
        await database.close()
