"""What goes through the sink comes out once, whole and exact."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.checkup import check_store
from aggregator.following import NoFollower, Rejections, Settling
from meterline.eventlog.memory import MemoryLog
from meterline.kernel.meters import Aggregation
from meterline.kernel.quantity import OUT_OF_RANGE, missing_value
from meterline.kernel.usage import Usage
from tests.support.usage import canonical, meter, running_sink, send

WIDEST = "12345678901234567890.123456789012345678"
TOKENS = meter("tokens", model="$.model")


async def test_counts_each_key_once(tmp_path: Path) -> None:
    async with running_sink(tmp_path, [TOKENS, meter("calls", Aggregation.COUNT)]) as rig:
        first = [canonical(str(n), f'{{"tokens": {n}, "model": "m"}}') for n in range(100)]
        await send(rig.log, first)
        await send(rig.log, first[50:] + first[:50])
        await rig.settle()
        await send(rig.log, [*first, canonical("new", '{"tokens": 0.5}'), *first])
        await rig.settle()
        sums = sorted((await rig.totals()).values())
        assert sums == [("101", 101), ("4950.5", 101)]
        assert (await rig.engine.query("SELECT count(), uniqExact(id) FROM events")) == [(101, 101)]


async def test_the_key_is_a_tuple(tmp_path: Path) -> None:
    async with running_sink(tmp_path, [meter("calls", Aggregation.COUNT)]) as rig:
        await send(rig.log, [canonical("c", source="ab"), canonical("bc", source="a")])
        await send(rig.log, [canonical("c", source="ab")], namespace="other")
        await rig.settle()
        assert await rig.engine.query("SELECT count() FROM events") == [(3,)]
        assert sorted((await rig.totals()).values()) == [("2", 2)]


async def test_other_content_is_a_conflict_kept_once(tmp_path: Path) -> None:
    async with running_sink(tmp_path, [TOKENS]) as rig:
        await send(rig.log, [canonical("a", '{"tokens": 1}'), canonical("a", '{"tokens": 2}')])
        await send(rig.log, [canonical("a", '{"tokens": 3}'), canonical("a", '{"tokens": 1}')])
        await rig.settle()
        await send(rig.log, [canonical("a", '{"tokens": 2}'), canonical("a", '{"tokens": 3}')])
        await rig.settle()
        stored = await rig.engine.query("SELECT data, status FROM events ORDER BY off, idx")
        assert stored == [('{"tokens": 1}', 0), ('{"tokens": 2}', 1), ('{"tokens": 3}', 1)]
        assert list((await rig.totals()).values()) == [("1", 1)]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (f'{{"tokens": {WIDEST}}}', WIDEST),
        ('{"tokens": 9007199254740993}', "9007199254740993"),
        ('{"tokens": 0.000000000000000001}', "0.000000000000000001"),
        ('{"tokens": "1e3"}', "1000"),
        ('{"tokens": 1.50}', "1.5"),
        ('{"tokens": -7}', "-7"),
        ('{"x": 1, "tokens": 1, "tokens": 2}', "1"),
    ],
)  # fmt: skip
async def test_values_are_exact(tmp_path: Path, data: str, value: str) -> None:
    async with running_sink(tmp_path, [TOKENS]) as rig:
        await send(rig.log, [canonical("a", data)])
        await rig.settle()
        assert list((await rig.totals()).values()) == [(value, 1)]
        assert await rig.engine.query("SELECT data FROM events") == [(data,)]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "invalid event: null and missing value property"),
        ("null", "invalid event: null and missing value property"),
        ("{}", 'invalid event: missing value property: "$.tokens"'),
        ('{"tokens": null}', "value cannot be null"),
        ('{"tokens": "NaN"}', "value cannot be NaN/infinity"),
        ('{"tokens": 1e400}', OUT_OF_RANGE),
        ('{"tokens": 123456789012345678901}', OUT_OF_RANGE),
        ('{"tokens": 0.0000000000000000001}', OUT_OF_RANGE),
        ('{"tokens": "x"}', "value cannot be parsed as a decimal"),
        ('{"tokens": true}', "value cannot be parsed as a decimal"),
        ('{"tokens": {}}', "value cannot be parsed as a decimal"),
        ('"text"', 'invalid event: missing value property: "$.tokens"'),
    ],
)  # fmt: skip
async def test_what_a_meter_cannot_use_is_kept_with_a_reason(
    tmp_path: Path, data: str | None, reason: str
) -> None:
    async with running_sink(tmp_path, [TOKENS]) as rig:
        await send(rig.log, [canonical("a", data)])
        await rig.settle()
        assert await rig.totals() == {}
        assert await rig.engine.query("SELECT reason FROM faults") == [(reason,)]
        assert await rig.engine.query("SELECT data FROM events") == [(data or "",)]


async def test_a_new_series_takes_up_what_is_stored(tmp_path: Path) -> None:
    async with running_sink(tmp_path, [TOKENS]) as rig:
        for batch in range(5):
            data = ['{"tokens": 2}', '{"tokens": 0.1234567890123456789}', '{"tokens": 1e1}']
            await send(rig.log, [canonical(f"{batch}-{n}", text) for n, text in enumerate(data)])
        await rig.settle()
        by_user = await rig.sink.registry.ensure(meter("by_user", user="$.user"))
        await send(rig.log, [canonical("late", '{"tokens": 5}')])
        await rig.settle()
        await rig.filled()
        sums = await rig.totals()
        assert sums[by_user.id] == ("65", 11)
        faults = await rig.engine.query("SELECT series, count() FROM faults GROUP BY series")
        assert dict(faults)[by_user.id] == 5


async def test_a_released_series_is_deleted(tmp_path: Path) -> None:
    async with running_sink(tmp_path, [TOKENS]) as rig:
        await send(rig.log, [canonical("a", '{"tokens": 1}')])
        await rig.settle()
        await rig.sink.registry.release(TOKENS)
        again = await rig.sink.registry.ensure(TOKENS)
        await rig.filled()
        assert await rig.totals() == {again.id: ("1", 1)}


async def test_a_purged_subject_is_gone_for_good(tmp_path: Path) -> None:
    async with running_sink(tmp_path, [TOKENS]) as rig:
        alice = [canonical(f"a{n}", '{"tokens": 1}', subject="alice") for n in range(3)]
        await send(
            rig.log,
            [*alice, canonical("bad", "{}"), canonical("b", '{"tokens": 7}', subject="bob")],
        )
        await rig.sink.purge("default", "alice")
        assert await rig.engine.query("SELECT subject FROM events") == [("bob",)]
        assert await rig.engine.query("SELECT count() FROM faults") == [(0,)]
        await send(rig.log, alice)
        await rig.settle()
        assert list((await rig.totals()).values()) == [("7", 1)]


async def test_a_restart_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with running_sink(tmp_path, [TOKENS]) as rig:
        await send(rig.log, [canonical("a", '{"tokens": 1}')])
        await rig.settle()
        log = rig.log
    async with running_sink(tmp_path, [TOKENS], log=log) as rig:
        await send(log, [canonical("a", '{"tokens": 1}'), canonical("b", '{"tokens": 2}')])
        await rig.settle()
        assert list((await rig.totals()).values()) == [("3", 2)]


async def test_a_lost_log_loses_no_new_event(tmp_path: Path) -> None:
    async with running_sink(tmp_path, [TOKENS]) as rig:
        for number in range(5):
            await send(rig.log, [canonical(f"old{number}", '{"tokens": 1}')])
        await rig.settle()
    async with running_sink(tmp_path, [TOKENS], log=MemoryLog()) as rig:
        await send(rig.log, [canonical("new", '{"tokens": 1}'), canonical("old0", '{"tokens": 1}')])
        await rig.settle()
        assert list((await rig.totals()).values()) == [("6", 6)]


async def test_followers_are_told_each_usage_once(tmp_path: Path) -> None:
    told: list[Usage] = []
    refused: list[tuple[str, str, int]] = []

    class Listening:
        async def series(self, conn: AsyncConnection) -> list[int]:
            return [1]

        async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
            told.extend(usages)

        async def settling(
            self, conn: AsyncConnection, events: Sequence[tuple[str, str]]
        ) -> Settling:
            raise AssertionError("no event settles a hold here")

        async def rejected(self, conn: AsyncConnection, read: Rejections) -> None:
            refused.extend(await read())

        async def erase(self, conn: AsyncConnection, namespace: str, subject: str) -> None:
            raise AssertionError("nothing is erased here")

    async with running_sink(tmp_path, [TOKENS], follower=Listening()) as rig:
        past, future = "2026-01-15T11:00:00.25Z", "2199-01-01T00:00:00Z"
        first = [canonical(str(n), '{"tokens": 0.5, "model": "m"}', time=past) for n in range(4)]
        await send(rig.log, [*first, canonical("bad", "{}", time=past)])
        await send(rig.log, [*first, canonical("later", '{"tokens": 9}', time=future)])
        await rig.settle()
    assert refused == [("default", missing_value("$.tokens"), 1)]
    at, due = datetime(2026, 1, 15, 11, 0, 0, 250_000, UTC), datetime(2199, 1, 1, tzinfo=UTC)
    assert sorted(told, key=lambda one: one.latest) == [
        Usage(1, "alice", ("m",), None, Decimal(2), 4, at, at),
        Usage(1, "alice", ("",), due, Decimal(9), 1, due, due),
    ]


async def test_who_begins_to_follow_just_before_the_commit_is_told(tmp_path: Path) -> None:
    told: list[Usage] = []

    class Listening(NoFollower):
        looks = 0

        async def series(self, conn: AsyncConnection) -> list[int]:
            # The first look is the one before the transaction.
            self.looks += 1
            return [1] if self.looks == 1 else [1, 2]

        async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
            told.extend(usages)

    follower = Listening()
    meters = [TOKENS, meter("calls", Aggregation.COUNT)]
    async with running_sink(tmp_path, meters, follower=follower) as rig:
        await send(rig.log, [canonical("a", '{"tokens": 3}')])
        await rig.settle()
    # Before the transaction, in one that finds another series, and in the next.
    assert follower.looks == 3
    assert sorted((one.series, one.count) for one in told) == [(1, 1), (2, 1)]


async def test_the_checkup_finds_what_does_not_agree(tmp_path: Path) -> None:
    async with running_sink(tmp_path, [TOKENS]) as rig:
        await send(rig.log, [canonical(str(n), f'{{"tokens": {n}}}') for n in range(10)])
        await rig.settle()
        live = rig.sink.registry.live()
        assert await check_store(rig.engine, live) == []
        await rig.engine.execute("INSERT INTO points SELECT * FROM points WHERE idx = 3")
        await rig.engine.execute("INSERT INTO events SELECT * FROM events WHERE idx = 5")
        await rig.engine.execute(f"TRUNCATE TABLE {rig.engine.layout.change('keys')}")
        found = [one.what for one in await check_store(rig.engine, live)]
        assert found == ["events", "events", "keys"]
        totals = rig.engine.layout.change("totals")
        await rig.engine.execute(f"DELETE FROM {totals} WHERE series = 1")
        assert "series 1" in [one.what for one in await check_store(rig.engine, live)]


async def test_a_commit_whose_answer_is_lost_is_not_done_again(tmp_path: Path) -> None:
    told: list[Usage] = []
    failures: list[str] = []

    class Listening(NoFollower):
        async def series(self, conn: AsyncConnection) -> list[int]:
            return [1]

        async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
            told.extend(usages)

    async def lose_the_answer(step: str) -> None:
        if step == "committed" and not failures:
            failures.append(step)
            raise OSError("the answer was lost (injected)")

    follower = Listening()
    async with running_sink(tmp_path, [TOKENS], on_step=lose_the_answer, follower=follower) as rig:
        events = [canonical(str(number), '{"tokens": 1}') for number in range(5)]
        await send(rig.log, events)
        await rig.settle()
        await send(rig.log, events)
        await rig.settle()
        assert failures and sum(usage.count for usage in told) == 5
        assert list((await rig.totals()).values()) == [("5", 5)]
