"""The command line, but with a guard switched off, or with a sink that dies or waits at a step.

    python -m tests.faults.launcher [--without GUARD]... [--kill-at STEP] [--hold-at STEP FILE] \\
        -- serve ...

`--kill-at` ends the process as `kill -9` does, the first time that a worker comes to this step.
With `--hold-at` the first worker there waits, having made FILE.held, until FILE.go is there. Each
GUARD is one that the product has and nobody can switch off but here.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator import worker
from aggregator.scratch import Scratch
from aggregator.staging import Staging
from aggregator.stores import state
from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.worker import PartitionSink
from meterline.eventlog.kafka_writer import KafkaWriter
from meterline.server.cli import main


def _answer_before_the_brokers() -> None:
    append = KafkaWriter.append
    under_way: set[asyncio.Task[int | None]] = set()

    async def at_once(
        self: KafkaWriter, namespace: str, ingested_at: datetime, count: int, events: bytes
    ) -> int | None:
        task = asyncio.create_task(append(self, namespace, ingested_at, count, events))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        await asyncio.sleep(0)
        return None

    KafkaWriter.append = at_once  # type: ignore[method-assign]


def _let_anybody_write() -> None:
    async def nobody_is_cut_off(conn: AsyncConnection, part: int, epoch: int) -> None:
        pass

    async def commit(
        conn: AsyncConnection, plan: state.Plan, epoch: int, through_at: datetime | None
    ) -> None:
        change = {"position": plan.last, "through_at": through_at}
        mine = state.sink_partitions.c.part == plan.part
        await conn.execute(sa.update(state.sink_partitions).where(mine).values(change))
        await conn.execute(sa.delete(state.sink_plans).where(state.sink_plans.c.part == plan.part))

    state.fence = nobody_is_cut_off
    state.commit_plan = commit
    Scratch.older = lambda _self, _names: []  # type: ignore[method-assign,assignment]


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


def _trust_scratch_tables() -> None:
    async def fine(*_: object) -> int:
        return 0

    Staging.check = fine  # type: ignore[method-assign,assignment]


def _commit_before_it_is_stored() -> None:
    apply = PartitionSink._apply

    async def committed_first(self: PartitionSink, plan: state.Plan, records: Any) -> None:
        async with self._database.transaction() as conn:
            await state.commit_plan(conn, plan, self._mine, None)
        await apply(self, plan, records)

    PartitionSink._apply = committed_first  # type: ignore[method-assign]


GUARDS: dict[str, Callable[[], None]] = {
    "acks": _answer_before_the_brokers,
    "fencing": _let_anybody_write,
    "tokens": _forget_tokens,
    "scratch": _trust_scratch_tables,
    "order": _commit_before_it_is_stored,
}


def _hold(file: str) -> None:
    Path(f"{file}.held").touch()
    while not Path(f"{file}.go").exists():
        time.sleep(0.02)


def _at_steps(kill_at: str | None, hold_at: tuple[str, str] | None) -> None:
    begin = PartitionSink.__init__
    held = False

    async def on_step(step: str) -> None:
        nonlocal held
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if hold_at is not None and step == hold_at[0] and not held:
            held = True
            await asyncio.to_thread(_hold, hold_at[1])

    def watched(self: PartitionSink, part: int, parts: worker.SinkParts, _: worker.Step) -> None:
        begin(self, part, parts, on_step)

    PartitionSink.__init__ = watched  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    given = argparse.ArgumentParser()
    given.add_argument("--without", action="append", default=[], choices=GUARDS)
    given.add_argument("--kill-at", choices=worker.STEPS)
    given.add_argument("--hold-at", nargs=2)
    end = sys.argv.index("--")
    options = given.parse_args(sys.argv[1:end])
    for guard in options.without:
        GUARDS[guard]()
    if options.kill_at or options.hold_at:
        _at_steps(options.kill_at, options.hold_at)
    sys.argv[1:] = sys.argv[end + 1 :]
    main()
