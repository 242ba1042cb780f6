"""A process of its own that runs the sink on an embedded log, and may kill itself at a step.

    python -m tests.support.sink_child FOLDER STEP [GUARD...]

With a STEP that never comes it drains the log and prints what the store holds. Each GUARD is
switched off.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from aggregator.staging import Staged, Staging
from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.worker import SinkOptions
from meterline.eventlog.sqlite import SqliteLog
from meterline.kernel.meters import Aggregation
from tests.support.usage import meter, running_sink

METERS = [
    meter("tokens", model="$.model"),
    meter("calls", Aggregation.COUNT),
    meter("faulty", value="$.absent"),
]


def _forget_tokens() -> None:
    execute = ClickHouseEngine.execute

    async def without_token(
        self: ClickHouseEngine,
        sql: str,
        params: Any = None,
        settings: Any = None,
        query_id: str | None = None,
    ) -> None:
        kept = {k: v for k, v in (settings or {}).items() if k != "insert_deduplication_token"}
        await execute(self, sql, params, {**kept, "insert_deduplicate": 0}, query_id)

    ClickHouseEngine.execute = without_token  # type: ignore[method-assign]


def _see_own_keys() -> None:
    judge = Staging.judge

    async def with_own_keys(self: Staging, first: int, expected: int) -> Staged:
        return await judge(self, 1 << 62, expected)

    Staging.judge = with_own_keys  # type: ignore[method-assign]


def _write_keys_alone() -> None:
    execute = ClickHouseEngine.execute

    async def keys_only(
        self: ClickHouseEngine,
        sql: str,
        params: Any = None,
        settings: Any = None,
        query_id: str | None = None,
    ) -> None:
        if sql.lstrip().startswith(("INSERT INTO events", "INSERT INTO points")):
            await asyncio.Event().wait()
        await execute(self, sql, params, settings, query_id)

    ClickHouseEngine.execute = keys_only  # type: ignore[method-assign]


GUARDS = {"tokens": _forget_tokens, "own-keys": _see_own_keys, "others": _write_keys_alone}


async def main(folder: Path, stop_at: str) -> None:
    log = SqliteLog(folder / "events.log")

    async def on_step(name: str) -> None:
        if name == stop_at:
            os.kill(os.getpid(), signal.SIGKILL)

    # Small plans, so that every kill leaves some work before and behind it.
    options = SinkOptions(max_plan_events=50, linger_seconds=0.0)
    async with running_sink(folder, METERS, log=log, on_step=on_step, options=options) as rig:
        await rig.settle()
        stored = await rig.engine.query("SELECT count(), uniqExact(id) FROM events")
        faults = await rig.engine.query("SELECT count() FROM faults")
        sums = sorted((await rig.totals()).values())
        print(json.dumps({"sums": sums, "events": stored[0], "faults": faults[0][0]}))
    await log.close()


if __name__ == "__main__":
    folder, step, *guards = sys.argv[1:]
    for guard in guards:
        GUARDS[guard]()
    asyncio.run(main(Path(folder), step))
