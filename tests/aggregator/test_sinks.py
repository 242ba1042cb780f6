"""Several sinks over several partitions: each event once, whoever has which partition when.

Each guard has a control: the same fault with the guard switched off gives a wrong answer.
"""

import asyncio
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from aggregator.ahead import AHEAD
from aggregator.rows import ONE_BLOCK, insert_keys
from aggregator.scratch import Scratch
from aggregator.staging import Staging
from aggregator.stores import state
from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.stores.migrations import migrate
from aggregator.worker import STEPS
from meterline.kernel.errors import UnavailableError
from meterline.kernel.meters import Aggregation
from meterline.kernel.usage import HOLD_SOURCE
from tests.support.engines import store_at
from tests.support.partitioned import PartitionedLog
from tests.support.sinks import OPTIONS, Sinks, running_sinks, until
from tests.support.usage import canonical, meter

METERS = [
    meter("tokens", model="$.model"),
    meter("calls", Aggregation.COUNT),
    meter("faulty", value="$.absent"),
]
SEED = 20260115


def events(ids: range, chance: random.Random | None = None) -> list[dict[str, Any]]:
    """One event a number, and some of them twice."""
    made = [canonical(str(n), f'{{"tokens": {n}.5, "model": "m{n % 3}"}}') for n in ids]
    if chance is not None:
        made += chance.sample(made, len(made) // 4)
        chance.shuffle(made)
    return made


async def right(on: Sinks, count: int) -> bool:
    """Whether the events 0 to `count` are stored, each once."""
    total = sum(range(count)) + count / 2
    expected = sorted([(str(count), count), (f"{total:.1f}".removesuffix(".0"), count)])
    found = sorted((await on.totals()).values())
    print(found, expected)
    return found == expected and await on.right()


class Stop:
    """Holds a sink at a step, until the test lets it go on; once."""

    def __init__(self) -> None:
        self.at: str | None = None
        self.stopped = asyncio.Event()
        self.released = asyncio.Event()

    async def __call__(self, step: str) -> None:
        if step == self.at:
            self.at = None
            self.stopped.set()
            await self.released.wait()

    def arm(self, step: str) -> None:
        self.at, self.stopped, self.released = step, asyncio.Event(), asyncio.Event()


async def test_two_sinks_have_partitions_of_their_own(tmp_path: Path, any_url: str) -> None:
    log = PartitionedLog(4, SEED)
    async with running_sinks(tmp_path, any_url, log, METERS) as on:
        on.follower.series_followed = [1, 2]
        await log.assign([0, 2], [1, 3])
        chance = random.Random(SEED)
        for start in range(0, 400, 100):
            await log.send(events(range(start, start + 100), chance))
        await log.send(events(range(400), chance))
        await on.settle()
        assert await right(on, 400)
        assert on.follower.counts == {1: 400, 2: 400}
        assert [[one.part for one in await sink.status()] for sink in on.sinks] == [[0, 2], [1, 3]]
        asked = on.freshness.visible_until()
        assert (await asked).year >= 2026


@pytest.mark.parametrize("seed", range(3))
async def test_partitions_that_move_every_few_plans(
    tmp_path: Path, any_url: str, seed: int
) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)
    log = PartitionedLog(4, seed)
    async with running_sinks(tmp_path, any_url, log, METERS) as on:
        on.follower.series_followed = [1, 2]
        for start in range(0, 600, 60):
            await log.send(events(range(start, start + 60), chance))
            first = {part for part in range(4) if chance.random() < 0.5}
            await log.assign(first, set(range(4)) - first)
            await asyncio.sleep(chance.random() * 0.1)
        await on.settle()
        assert await right(on, 600)
        assert on.follower.counts == {1: 600, 2: 600}


async def test_a_sink_that_was_cut_off_at_any_step_changes_nothing(
    tmp_path: Path, any_url: str
) -> None:
    """At each step one sink hangs, another one takes over, and then the first one wakes up."""
    stop = Stop()
    log = PartitionedLog(1, SEED)
    async with running_sinks(tmp_path, any_url, log, METERS, steps=(stop, _none)) as on:
        on.follower.series_followed = [1, 2]
        steps = (*STEPS, AHEAD)
        for number, step in enumerate(steps):
            # Two plans, so that one is staged ahead.
            ids = range(number * 80, number * 80 + 80)
            await log.assign([0], [])
            await log.readers[1].tell(frozenset())
            stop.arm(step)
            await log.send(events(ids))
            await asyncio.wait_for(stop.stopped.wait(), 30)
            # The first one is not told: it hangs.
            await log.readers[1].tell(frozenset({0}))
            await on.settle()
            stop.released.set()
            await log.send(events(ids))
            await on.settle()
        assert await right(on, 80 * len(steps))
        assert on.follower.counts == {1: 80 * len(steps), 2: 80 * len(steps)}


async def test_a_sink_that_cannot_reach_the_log_leaves_the_partition_to_others(
    tmp_path: Path, any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read ahead, and nobody tells it that its partition went to another one."""
    looked = asyncio.Event()
    log = PartitionedLog(1, SEED)
    async with running_sinks(tmp_path, any_url, log, METERS) as on:
        await log.assign([0], [])
        await log.send(events(range(20)))
        await on.settle()

        async def unreachable(_partition: int) -> int:
            looked.set()
            raise UnavailableError("the brokers cannot be reached")

        monkeypatch.setattr(log.readers[0], "end", unreachable)
        await log.readers[1].tell(frozenset({0}))
        await log.send(events(range(20, 200)))
        await asyncio.wait_for(looked.wait(), 30)
        await on.settle()
        async with on.databases[1].read() as conn:
            epochs = await conn.execute(sa.select(state.sink_partitions.c.epoch))
            # Each has taken it once.
            assert epochs.scalar_one() == 2
        assert await right(on, 200)


async def _none(_step: str) -> None:
    pass


def _no_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    commit = state.commit_plan

    async def fence(_conn: Any, _part: int, _epoch: int) -> None:
        pass

    async def committed(conn: Any, plan: Any, _epoch: int, through: Any) -> None:
        places = await conn.execute(
            sa.select(state.sink_partitions.c.epoch).where(
                state.sink_partitions.c.part == plan.part
            )
        )
        await commit(conn, plan, places.scalar_one(), through)

    monkeypatch.setattr(state, "fence", fence)
    monkeypatch.setattr(state, "commit_plan", committed)
    monkeypatch.setattr(Scratch, "older", lambda _self, _names: [])


@pytest.mark.parametrize("step", ["read", "judged"])
@pytest.mark.parametrize("fenced", [True, False])
async def test_without_fencing_it_counts_twice(
    tmp_path: Path, any_url: str, monkeypatch: pytest.MonkeyPatch, step: str, fenced: bool
) -> None:
    if not fenced:
        _no_fence(monkeypatch)
    stop = Stop()
    log = PartitionedLog(1, SEED)
    options = replace(OPTIONS, max_plan_events=30)
    async with running_sinks(
        tmp_path, any_url, log, METERS, steps=(stop, _none), options=options
    ) as on:
        on.follower.series_followed = [2]
        stop.arm(step)
        await log.assign([0], [])
        await log.send(events(range(20)))
        await asyncio.wait_for(stop.stopped.wait(), 30)
        await log.send(events(range(20, 40)))
        await log.readers[1].tell(frozenset({0}))
        await on.settle()
        stop.released.set()
        worker = on.sinks[0]._workers[0].worker
        await until(
            lambda: worker.progress.last_error or worker.progress.position, "the first sink went on"
        )
        doubled = on.follower.counts[2] != 40 or not await right(on, 40)
        assert doubled is not fenced


def _without_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Staging, "_compare", lambda _self, _found, _expected: None)


@pytest.mark.parametrize("step", ["staged", "judged", "events", "points"])
async def test_a_restart_of_the_engine_in_mid_plan(tmp_path: Path, step: str, any_url: str) -> None:
    assert await _restarted(tmp_path, step, any_url)


@pytest.mark.parametrize("step", ["staged", "judged"])
async def test_without_looking_a_restart_of_the_engine_loses_events(
    tmp_path: Path, step: str, any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _without_check(monkeypatch)
    assert not await _restarted(tmp_path, step, any_url)


async def _restarted(tmp_path: Path, step: str, url: str) -> bool:
    log = PartitionedLog(1, SEED)
    held: list[Sinks] = []

    async def restart(name: str) -> None:
        if name == step and held:
            await held.pop().empty_scratch()

    async with running_sinks(tmp_path, url, log, METERS, steps=(restart,)) as on:
        held.append(on)
        await log.assign([0])
        await log.send(events(range(40)))
        await on.settle()
        assert not held
        return await right(on, 40)


@pytest.mark.parametrize(("within", "fine"), [(2, True), (1_000_000, False)])
async def test_a_plan_is_done_again_after_its_tokens_are_forgotten(
    tmp_path: Path, any_url: str, within: int, fine: bool
) -> None:
    stop = Stop()
    log = PartitionedLog(2, SEED)
    options = replace(OPTIONS, redo_within_plans=within)
    async with running_sinks(
        tmp_path, any_url, log, METERS, steps=(stop, _none), options=options
    ) as on:
        for table in ("events", "keys", "points", "totals", "faults"):
            await on.engine.execute(
                f"ALTER TABLE {table} MODIFY SETTING non_replicated_deduplication_window = 4"
            )
        mine = [one for one in events(range(200)) if log.home("default", one) == 0][:30]
        others = [one for one in events(range(200)) if log.home("default", one) == 1][:60]
        await log.assign([0], [1])
        stop.arm("points")
        await log.send(mine)
        await asyncio.wait_for(stop.stopped.wait(), 30)
        for start in range(0, 60, 5):
            await log.send(others[start : start + 5])
            worker, end = on.sinks[1]._workers[1].worker, await log.readers[1].end(1)
            assert await worker.progress.wait_visible(end, 30)
        await log.readers[1].tell(frozenset({0, 1}))
        await on.settle()
        stop.released.set()
        counted = sorted((await _counts(on)).values())
        assert (counted == [90, 90, 90, 90]) is fine


async def _counts(on: Sinks) -> dict[str, int]:
    found = {}
    for table in ("points", "totals"):
        count = "count()" if table == "points" else "sum(count)"
        for series, number in await on.engine.query(
            f"SELECT series, {count} FROM {table} GROUP BY series"
        ):
            found[f"{table} {series}"] = number
    return found


async def test_what_cannot_be_read_is_set_aside_alone(tmp_path: Path, any_url: str) -> None:
    log = PartitionedLog(1, SEED)
    async with running_sinks(tmp_path, any_url, log, METERS, steps=(_none,)) as on:
        await log.send(events(range(10)))
        odd = [await log.send_raw(0, b"\xff\xfe", "not JSON")]
        odd += [await log.send_raw(0, b"[1]")]
        await log.send(events(range(10, 20)))
        odd += [await log.send_raw(0, b'"text"')]
        await log.send(events(range(20, 30)))
        await log.assign([0])
        await on.settle()
        assert await right(on, 30)
        assert sorted({offset for offset, _ in log.dead}) == sorted(odd)
        async with on.databases[0].read() as conn:
            listed = await conn.execute(sa.select(state.dead_letters.c.off))
            assert sorted(listed.scalars()) == sorted(odd)


async def test_events_that_settle_holds_are_told_once(tmp_path: Path, any_url: str) -> None:
    log = PartitionedLog(2, SEED)
    async with running_sinks(tmp_path, any_url, log, METERS) as on:
        await log.assign([0], [1])
        holds = [canonical(f"hold{n}", '{"tokens": 1}', source=HOLD_SOURCE) for n in range(5)]
        await log.send([*holds, *holds, *events(range(20))])
        await log.send([canonical("hold1", '{"tokens": 2}', source=HOLD_SOURCE), *holds])
        await on.settle()
        assert sorted(on.follower.settled_events) == [("default", f"hold{n}") for n in range(5)]


@pytest.mark.parametrize(("ordered", "stored"), [(True, 40), (False, 80)])
async def test_a_token_stands_for_all_of_an_insert(
    tmp_path: Path, ordered: bool, stored: int
) -> None:
    """However many blocks the scratch table has, which differs from one read to the next."""
    engine = ClickHouseEngine(store_at(tmp_path / "store"))
    try:
        await migrate(engine)
        for epoch, cuts in enumerate([[0, 40], [0, 10, 40]], 1):
            scratch = Scratch(0, epoch)
            for statement in scratch.ddl():
                await engine.execute(statement)
            for start, end in pairwise(cuts):
                await engine.execute(
                    f"INSERT INTO {scratch.events} (part, off, idx, id, h) SELECT 0, number, 1,"
                    f" toString(number), number FROM numbers({start}, {end - start})"
                )
            statement = insert_keys(scratch, verdicts=False)
            if not ordered:
                statement = statement[: statement.index("ORDER BY")]
            token = {"insert_deduplication_token": "0-1-40"}
            await engine.execute(statement, {}, {**ONE_BLOCK, **token})
        assert await engine.query("SELECT count() FROM keys") == [(stored,)]
    finally:
        await engine.close()
