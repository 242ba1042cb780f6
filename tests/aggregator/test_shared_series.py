"""Series, purges and their leader, while plans of two sinks are under way."""

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aggregator.backfill import Backfill
from aggregator.registry import SeriesRegistry
from aggregator.rows import totals_of_points
from aggregator.scratch import Lease
from aggregator.series import Series, SeriesKey
from aggregator.stores import series as stored
from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.stores.engine import EngineError
from aggregator.stores.layout import Layout
from aggregator.stores.migrations import migrate, migrations
from aggregator.stores.series import StoredSeries
from aggregator.upkeep import Erasure
from meterline.db.locks import Gate, Held
from meterline.kernel.clock import system_clock
from meterline.kernel.meters import Aggregation
from tests.support.engines import store_at
from tests.support.partitioned import PartitionedLog
from tests.support.sinks import Sinks, running_sinks, until
from tests.support.usage import canonical, meter

TOKENS = meter("tokens", model="$.model")
SEED = 20260115


def events(ids: range) -> list[dict[str, Any]]:
    made = []
    for n in ids:
        # Some need Python to be read exactly.
        value = f"{n}.5" if n % 7 else f"{n}.50000000000000000"
        data = f'{{"tokens": {value}, "model": "m{n % 3}", "user": "u{n % 5}"}}'
        made.append(canonical(str(n), data, subject=f"s{n % 4}"))
    return made


def total(ids: range) -> tuple[str, int]:
    return (f"{sum(ids) + len(ids) / 2:.1f}".removesuffix(".0"), len(ids))


def _api(on: Sinks) -> SeriesRegistry:
    """A registry in a process without a sink."""
    gate = on.sinks[0].registry.gate
    shared = gate if on.databases[-1].dialect == "sqlite" else None
    return SeriesRegistry(on.databases[-1], on.engine, system_clock, gate=shared)


async def _stored_series(on: Sinks, number: int) -> Series:
    async with on.databases[-1].read() as conn:
        (found,) = await stored.load_series(conn, [number])
    return found.series


async def test_a_series_that_another_process_makes(tmp_path: Path, any_url: str) -> None:
    log = PartitionedLog(2, SEED)
    async with running_sinks(tmp_path, any_url, log, [TOKENS]) as on:
        await log.assign([0], [1])
        await log.send(events(range(100)))
        await on.settle()
        api, other = _api(on), _api(on)
        await api.start([TOKENS])
        await other.start([TOKENS])
        by_user = meter("by_user", user="$.user")
        made = await api.ensure(by_user)
        await log.send(events(range(100, 200)))
        assert (await other.ensure(by_user)).id == made.id
        await on.settle()
        await on.filled()
        assert (await on.totals())[made.id] == total(range(200))
        assert (await other.get(by_user)).state == "ready"
        # Gone and made anew elsewhere: an old copy must not lead to the old series.
        await api.release(by_user)
        again = await api.ensure(by_user)
        assert again.id != made.id
        await on.filled()
        assert (await other.get(by_user)).id == again.id
        await log.send(events(range(200, 250)))
        await on.settle()
        assert (await on.totals())[again.id] == total(range(250))
        assert await on.right()


@pytest.mark.parametrize("seed", range(2))
async def test_everything_at_once(tmp_path: Path, any_url: str, seed: int) -> None:
    """Series come and go, a subject is purged and partitions move, while events arrive."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    log = PartitionedLog(3, seed)
    async with running_sinks(tmp_path, any_url, log, [TOKENS]) as on:
        await log.assign([0, 1], [2])
        apis = [_api(on), _api(on)]
        for api in apis:
            await api.start([TOKENS])
        choices = [meter(f"m{n}", dim=f"$.d{n}") for n in range(3)]
        choices += [meter("calls", Aggregation.COUNT)]
        erasure = Erasure(on.databases[0], on.freshness, system_clock)
        kept = {one.slug for one in choices}

        async def feed() -> None:
            for start in range(0, 480, 40):
                await log.send(events(range(start, start + 40)))
                await asyncio.sleep(chance.random() * 0.05)

        async def change() -> None:
            for _ in range(12):
                one, api = chance.choice(choices), chance.choice(apis)
                await (api.ensure if chance.random() < 0.6 else api.release)(one)
                await asyncio.sleep(chance.random() * 0.05)

        async def move() -> None:
            for _ in range(4):
                first = {part for part in range(3) if chance.random() < 0.5}
                await log.assign(first, set(range(3)) - first)
                await asyncio.sleep(chance.random() * 0.2)

        await asyncio.gather(feed(), change(), move())
        await erasure.purge("default", "s3")
        for one in choices:
            await apis[0].ensure(one)
        await log.send(events(range(480)))
        await on.settle()
        await on.filled()
        left = [n for n in range(480) if n % 4 != 3]
        expected = (f"{sum(left) + len(left) / 2:.1f}".removesuffix(".0"), len(left))
        live = on.sinks[0].registry.live()
        assert len(live) == 1 + len(kept)
        sums = await on.totals()
        assert [sums[one.id] for one in live if one.kind == "number"] == [expected] * 4
        assert await on.right()


async def test_a_step_that_was_cut_short_is_taken_back(tmp_path: Path, any_url: str) -> None:
    log = PartitionedLog(2, SEED)
    async with running_sinks(tmp_path, any_url, log, [TOKENS]) as on:
        await log.assign([0], [1])
        await log.send(events(range(200)))
        await on.settle()
        insert, cut = Backfill.insert_step, 0

        async def cut_short(self: Backfill, *args: Any) -> None:
            nonlocal cut
            await insert(self, *args)
            cut += 1
            if cut <= 2:
                raise EngineError(209, "answer lost (injected)")

        for sink in on.sinks:
            sink.registry.backfill.insert_step = (  # type: ignore[method-assign]
                lambda *args, own=sink.registry.backfill: cut_short(own, *args)
            )
        made = await on.sinks[1].registry.ensure(meter("by_user", user="$.user"))
        await log.send(events(range(200, 300)))
        await on.settle()
        await on.filled()
        assert cut > 2
        assert (await on.totals())[made.id] == total(range(300))
        assert await on.right()


async def test_what_can_be_queried_is_not_prepared_again(
    tmp_path: Path, any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who made the series prepares it just when the leader, which saw it unprepared, begins to."""
    log = PartitionedLog(2, SEED)
    async with running_sinks(tmp_path, any_url, log, [TOKENS]) as on:
        await log.assign([0], [1])
        await log.send(events(range(1, 7)))
        await on.settle()
        await on.filled()
        api, mutex, known = _api(on), Gate.mutex, asyncio.Event()
        states: list[str] = []

        @asynccontextmanager
        async def late(gate: Gate, name: str) -> AsyncIterator[Held]:
            async with mutex(gate, name) as held:
                await known.wait()
                if not states:
                    async with on.databases[-1].transaction() as conn:
                        await stored.need_no_preparation(conn, made.id)
                states.append((await _stored_series(on, made.id)).state)
                yield held
                states.append((await _stored_series(on, made.id)).state)

        async def insert_exact(_self: Backfill, series: Series) -> None:
            states.append((await _stored_series(on, series.id)).state)

        monkeypatch.setattr(Gate, "mutex", late)
        monkeypatch.setattr(Backfill, "insert_exact", insert_exact)
        monkeypatch.setattr(api, "_prepare", lambda _series: asyncio.sleep(0))
        made = await api.ensure(meter("by_user", user="$.user"))
        assert made.state == "preparing"
        known.set()
        await on.filled()
        assert states
        assert "preparing" not in states
        assert (await on.totals())[made.id] == total(range(1, 7))


async def test_who_comes_late_to_prepare_a_series_counts_nothing_twice(
    tmp_path: Path, any_url: str
) -> None:
    log = PartitionedLog(2, SEED)
    async with running_sinks(tmp_path, any_url, log, [TOKENS]) as on:
        await log.assign([0], [1])
        await log.send(events(range(50)))
        await on.settle()
        made = await _api(on).ensure(meter("by_user", user="$.user"))
        await on.filled()
        leader = on.sinks[0]
        leader.upkeep.wake()
        await leader.upkeep.settled()
        assert leader.registry.hasten is not None
        await leader.registry.hasten(StoredSeries(made, 1000, False))
        await on.filled()
        assert (await on.totals())[made.id] == total(range(50))


async def test_a_leader_that_was_deposed_adds_nothing(tmp_path: Path) -> None:
    engine = ClickHouseEngine(store_at(tmp_path / "store"))
    try:
        await migrate(engine)
        old, new = Backfill(engine), Backfill(engine)
        await old.lead(1)
        await new.lead(2)
        key = SeriesKey("default", "llm.usage", "number", "$.tokens", ())
        series = Series(1, key, "backfilling", {0: 100}, {})
        with pytest.raises(EngineError):
            await old.insert_step(series, 0, 0, 99)
        await new.insert_step(series, 0, 0, 99)
    finally:
        await engine.close()


async def test_another_process_leads_when_the_leader_is_gone(tmp_path: Path, any_url: str) -> None:
    log = PartitionedLog(1, SEED)
    async with running_sinks(tmp_path, any_url, log, [TOKENS]) as on:
        await log.assign([], [0])
        await log.send(events(range(50)))
        await on.settle()
        await until(lambda: any(one.upkeep._leader for one in on.sinks), "somebody leads")
        leads = next(one for one in on.sinks if one.upkeep._leader)
        other = next(one for one in on.sinks if one is not leads)
        leads._stopping.set()
        leads.upkeep.wake()
        await until(lambda: other.upkeep._leader, "the other one leads")
        made = await other.registry.ensure(meter("by_user", user="$.user"))
        await on.filled()
        await other.registry.reload()
        assert (await on.totals())[made.id] == total(range(50))
        async with on.databases[0].read() as conn:
            assert [one.in_progress for one in await stored.load_series(conn)] == [False, False]


def test_totals_are_made_anew_as_the_view_makes_them() -> None:
    """The same words, whatever the names and the spaces."""
    (view,) = (
        part
        for one in migrations()
        for part in one.statements(Layout())
        if "MATERIALIZED VIEW" in part and "totals_from_points" in part
    )
    select = view[view.index("SELECT") :]
    written = totals_of_points("true").replace("WHERE true ", "")
    select = re.sub(r"\) AS (sum|count|min|max)\b", ")", select)
    assert "".join(select.split()) == "".join(written.split())


def test_a_lease_is_older_than_the_next_one() -> None:
    names = [Lease(number).points for number in (1, 2, 10)]
    assert Lease(10).older([*names, "staging_events_p0_e1"]) == names[:2]
