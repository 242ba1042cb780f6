"""`kill -9` between any two steps of the sink, and writes that fail, change no total.

Each guard has a control: the same fault with the guard switched off gives a wrong total.
"""

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aggregator.stores.clickhouse import ClickHouseEngine, ClickHouseOptions
from aggregator.stores.engine import EngineError
from aggregator.worker import STEPS, SinkOptions
from meterline.eventlog.sqlite import SqliteLog
from tests.support.engines import environment
from tests.support.sink_child import METERS
from tests.support.usage import INGESTED, canonical, meter, running_sink, send

SEED = 20260115


def _child(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.support.sink_child", str(folder), *args],
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def killed(folder: Path, step: str, *guard: str) -> None:
    child = _child(folder, step, *guard)
    assert child.returncode == -signal.SIGKILL, child.stderr


def drained(folder: Path, *guard: str) -> dict[str, Any]:
    """What the store holds at the end; nothing when its tables disagree."""
    child = _child(folder, "none", *guard)
    print(child.stderr)
    answer: dict[str, Any] = json.loads(child.stdout) if child.returncode == 0 else {}
    return answer


async def append_events(folder: Path, ids: range, again: int = 0) -> None:
    """Append events in small batches, and some older ones once more."""
    chance = random.Random(f"{SEED}/{ids.start}")
    log = SqliteLog(folder / "events.log")
    numbers = [*ids, *chance.sample(range(ids.start), min(again, ids.start))]
    chance.shuffle(numbers)
    for start in range(0, len(numbers), 10):
        chosen = numbers[start : start + 10]
        data = [f'{{"tokens": {n}.5, "model": "m{n % 3}"}}' for n in chosen]
        await send(log, [canonical(str(n), text) for n, text in zip(chosen, data, strict=True)])
    await log.close()


def expected(count: int) -> dict[str, Any]:
    total = sum(range(count)) + count / 2
    sums = sorted([(str(count), count), (f"{total:.1f}".removesuffix(".0"), count)])
    return {"sums": [list(one) for one in sums], "events": [count, count], "faults": count}


async def test_killed_at_every_step(tmp_path: Path) -> None:
    for number, step in enumerate(STEPS):
        await append_events(tmp_path, range(number * 100, number * 100 + 100), again=30)
        killed(tmp_path, step)
    assert drained(tmp_path) == expected(100 * len(STEPS))


@pytest.mark.parametrize("step", ["points", "events"])
async def test_without_tokens_a_redo_counts_twice(tmp_path: Path, step: str) -> None:
    await append_events(tmp_path, range(100))
    killed(tmp_path, step, "tokens")
    assert drained(tmp_path, "tokens") != expected(100)


@pytest.mark.parametrize(("guard", "right"), [([], True), (["own-keys"], False)])
async def test_a_redo_does_not_mind_its_own_keys(
    tmp_path: Path, guard: list[str], right: bool
) -> None:
    await append_events(tmp_path, range(100))
    killed(tmp_path, "keys", "others", *guard)
    assert (drained(tmp_path, *guard) == expected(100)) is right


class Flaky(ClickHouseEngine):
    """Fails each insert once, before or after it was done, chosen by a seeded coin."""

    def __init__(self, where: Path | ClickHouseOptions) -> None:
        super().__init__(where)
        self.chance = random.Random(SEED)
        self.failures = 0

    async def execute(
        self, sql: str, params: Any = None, settings: Any = None, query_id: str | None = None
    ) -> None:
        fault = self.chance.choice(["before", "after", *["none"] * 18])
        if not sql.lstrip().startswith("INSERT INTO") or self.failures >= 60:
            fault = "none"
        if fault == "before":
            self.failures += 1
            raise EngineError(243, "no space left (injected)")
        await super().execute(sql, params, settings, query_id)
        if fault == "after":
            self.failures += 1
            raise EngineError(209, "answer lost (injected)")


async def test_failed_writes_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"seed {SEED}")
    monkeypatch.setattr("tests.support.usage.ClickHouseEngine", Flaky)
    options = SinkOptions(max_plan_events=20, linger_seconds=0.0, retry_seconds=0.01)
    async with running_sink(tmp_path, METERS, options=options) as rig:
        for batch in range(15):
            ids = range(batch * 20, batch * 20 + 20)
            await send(rig.log, [canonical(str(n), f'{{"tokens": {n}}}') for n in ids])
        await rig.settle()
        assert isinstance(rig.engine, Flaky)
        assert rig.engine.failures > 5
        assert sorted((await rig.totals()).values()) == [("300", 300), ("44850", 300)]


async def test_a_record_the_engine_cannot_read_blocks_nothing(tmp_path: Path) -> None:
    async with running_sink(tmp_path, [meter("tokens")]) as rig:
        await send(rig.log, [canonical("a", '{"tokens": 1}')])
        await rig.log.append("default", INGESTED, 1, b'[{"id": "broken", "data": {]')
        await send(rig.log, [canonical("b", '{"tokens": 2}')])
        await rig.settle()
        assert list((await rig.totals()).values()) == [("3", 2)]
        assert await rig.dead_letters() == [2]
