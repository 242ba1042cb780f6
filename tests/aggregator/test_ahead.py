"""The next plan of a backlog is staged while one is stored, and that changes no total."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from aggregator.ahead import AHEAD
from aggregator.parts import SinkOptions
from aggregator.scratch import FIND_SCRATCH
from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.stores.engine import EngineError
from meterline.eventlog.memory import MemoryLog
from meterline.kernel.meters import Aggregation
from tests.aggregator.test_sink_crashes import append_events, drained, expected, killed
from tests.support.database import sqlite_url
from tests.support.partitioned import PartitionedLog
from tests.support.sinks import running_sinks
from tests.support.usage import INGESTED, Rig, canonical, meter, running_sink, send

METERS = [meter("tokens", model="$.model"), meter("calls", Aggregation.COUNT)]
OPTIONS = SinkOptions(max_plan_events=20, linger_seconds=0.0, retry_seconds=0.01)

Then = Callable[[Rig], Awaitable[object]]


async def _backlog(events: int, again: int = 0) -> MemoryLog:
    """Events in tens; each of the last `again` batches repeats the one two plans before it."""
    log = MemoryLog()
    batches = [range(first, first + 10) for first in range(0, events, 10)]
    batches += batches[-4 : -4 + again] if again else []
    for ids in batches:
        texts = [f'{{"tokens": {n}, "model": "m{n % 3}"}}' for n in ids]
        pairs = zip(ids, texts, strict=True)
        await send(log, [canonical(str(number), text) for number, text in pairs])
    return log


async def _stored(path: Path, log: MemoryLog, then: Then | None = None) -> tuple[Any, int]:
    """The totals once all is stored, and how many plans were staged ahead."""
    running: asyncio.Future[Rig] = asyncio.get_running_loop().create_future()
    ahead = 0

    async def on_step(step: str) -> None:
        nonlocal ahead
        ahead += step == AHEAD
        if step == AHEAD and ahead == 1 and then is not None:
            await then(await running)

    async with running_sink(path, METERS, log=log, options=OPTIONS, on_step=on_step) as rig:
        running.set_result(rig)
        await rig.settle()
        await rig.filled()
        worker = rig.sink._workers[0].worker
        await worker._ahead.drop()
        # Whoever took a place among the plans has given it back.
        assert rig.sink._parts.plans._value == OPTIONS.plans_at_once
        return sorted((await rig.totals()).values()), ahead


async def test_a_backlog_is_staged_ahead(tmp_path: Path) -> None:
    found, ahead = await _stored(tmp_path, await _backlog(200))
    assert ahead > 5
    assert found == [("19900", 200), ("200", 200)]


async def test_what_is_repeated_in_the_next_plan_counts_once(tmp_path: Path) -> None:
    found, ahead = await _stored(tmp_path, await _backlog(100, again=4))
    assert ahead > 2
    assert found == [("100", 100), ("4950", 100)]


async def test_a_series_that_is_made_meanwhile_gets_every_event(tmp_path: Path) -> None:
    """The points that were staged ahead lack it, and are staged again."""

    async def make(rig: Rig) -> None:
        await rig.sink.registry.ensure(meter("by_user", user="$.user"))

    found, _ = await _stored(tmp_path, await _backlog(200), make)
    assert found == [("19900", 200), ("19900", 200), ("200", 200)]


async def test_a_restart_of_the_engine_after_staging_ahead(tmp_path: Path) -> None:
    async def restart(rig: Rig) -> None:
        for (name,) in await rig.engine.query(FIND_SCRATCH):
            await rig.engine.execute(f"TRUNCATE TABLE IF EXISTS {name}")

    found, _ = await _stored(tmp_path, await _backlog(200), restart)
    assert found == [("19900", 200), ("200", 200)]


async def test_what_fails_ahead_is_done_as_a_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = ClickHouseEngine.execute
    failed = 0

    async def refuse(self: ClickHouseEngine, sql: str, *args: Any, **more: Any) -> None:
        nonlocal failed
        if "INTO staging_events1" in sql:
            failed += 1
            raise EngineError(243, "no space left (injected)")
        await execute(self, sql, *args, **more)

    monkeypatch.setattr(ClickHouseEngine, "execute", refuse)
    found, ahead = await _stored(tmp_path, await _backlog(100))
    assert failed
    assert not ahead
    assert found == [("100", 100), ("4950", 100)]


async def test_a_broken_record_ahead_blocks_nothing(tmp_path: Path) -> None:
    log = await _backlog(60)
    await log.append("default", INGESTED, 1, b'[{"id": "broken", "data": {]')
    for first in range(60, 120, 10):
        ids = range(first, first + 10)
        await send(log, [canonical(str(n), f'{{"tokens": {n}}}') for n in ids])
    found, _ = await _stored(tmp_path, log)
    assert found == [("120", 120), (str(sum(range(120))), 120)]


async def test_killed_after_staging_ahead(tmp_path: Path) -> None:
    await append_events(tmp_path, range(300), again=30)
    killed(tmp_path, AHEAD)
    killed(tmp_path, AHEAD)
    assert drained(tmp_path) == expected(300)


async def test_a_partition_that_moves_while_it_is_staged_ahead(tmp_path: Path) -> None:
    """Over records that are cut differently at each read, between two sinks."""
    log = PartitionedLog(1, 7)
    others: list[asyncio.Task[None]] = []
    one_at_a_time = asyncio.Lock()
    moves = 0

    async def give(*shares: Sequence[int]) -> None:
        async with one_at_a_time:
            await log.assign(*shares)

    async def move(step: str) -> None:
        nonlocal moves
        if step == AHEAD and moves < 4:
            moves += 1
            others.append(asyncio.create_task(give([], [0]) if moves % 2 else give([0], [])))

    await log.send(canonical(str(n), f'{{"tokens": {n}}}') for n in range(600))
    async with running_sinks(
        tmp_path, sqlite_url(tmp_path), log, METERS, steps=(move, move), options=OPTIONS
    ) as on:
        await log.assign([0], [])
        await on.settle()
        await asyncio.gather(*others)
        assert moves
        assert sorted((await on.totals()).values()) == [(str(sum(range(600))), 600), ("600", 600)]
        assert await on.right()
