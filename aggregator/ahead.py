"""Staging what comes next in a partition, while the plan before it is stored.

What is staged is a copy of the log in scratch tables, and nothing more: whether it becomes a plan,
which of its events count and which series see them is decided once the plan before is committed.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog

from aggregator.cutting import events_between
from aggregator.parts import SinkParts, Step
from aggregator.series import Series
from aggregator.staging import Staging
from aggregator.stores import state
from meterline.eventlog.port import Record

log = structlog.get_logger(__name__)

AHEAD = "ahead"
"""The step after staging ahead. Not one of `STEPS`: only a backlog makes a plan have it."""

_ENOUGH = 2
"""How full a plan must be: a plan costs something whatever is in it, and more events may come."""


@dataclass(frozen=True, slots=True)
class Staged:
    """Records after the offset `after`, all of them in the scratch tables."""

    after: int
    records: Sequence[Record]


class ReadingAhead:
    """Fills a second set of scratch tables of a partition's worker.

    It counts as one of the plans that a process may be at, and never waits for its turn: with
    others at work there is nothing to gain.
    """

    def __init__(self, part: int, parts: SinkParts, spare: Staging, on_step: Step) -> None:
        self._part = part
        self._parts = parts
        self._spare = spare
        self._on_step = on_step
        self._task: asyncio.Task[Staged | None] | None = None
        self._staged: Staged | None = None

    async def begin(self, after: int, series: Sequence[Series], epoch: int) -> None:
        """Begin with what is after an offset, if that is much. `series` are a guess."""
        if self._task is None and self._staged is None and not self._parts.plans.locked():
            await self._parts.plans.acquire()
            self._task = asyncio.create_task(self._run(after, series, epoch))
            self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Staged | None]) -> None:
        # Here, because a task that is cancelled early never runs.
        if task.cancelled() or task.result() is None:
            self._parts.plans.release()

    async def ready(self) -> bool:
        """Wait for what was begun; answers whether there is something staged."""
        if self._task is not None:
            self._staged = await self._task
            self._task = None
        return self._staged is not None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Staged | None]:
        """Be one of the plans that a process is at, with what was staged for it."""
        staged, self._staged = self._staged, None
        if staged is None:
            await self._parts.plans.acquire()
        try:
            yield staged
        finally:
            self._parts.plans.release()

    def swap(self, used: Staging) -> Staging:
        """The scratch tables that were filled, for others that are not needed any more."""
        filled, self._spare = self._spare, used
        return filled

    async def drop(self) -> None:
        """Forget all of it. A statement under way may go on: nobody uses its tables again, as who
        goes on after a failure takes the partition anew."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            (found,) = await asyncio.gather(task, return_exceptions=True)
            self._staged = found if isinstance(found, Staged) else None
        if self._staged is not None:
            self._staged = None
            self._parts.plans.release()

    async def drop_tables(self) -> None:
        """Remove the spare tables, if they were ever made: the worker is done."""
        if self._spare.scratch.epoch:
            await self._spare.drop()

    async def _run(self, after: int, series: Sequence[Series], epoch: int) -> Staged | None:
        try:
            return await self._stage(after, series, epoch)
        except Exception as error:
            # It is tried again as a plan, which sets aside what cannot be read, and says what is
            # wrong.
            log.info("could not stage ahead", partition=self._part, reason=str(error)[:500])
            return None

    async def _stage(self, after: int, series: Sequence[Series], epoch: int) -> Staged | None:
        event_log, most = self._parts.log, self._parts.options.max_plan_events
        if await event_log.count(self._part, after) < most // _ENOUGH:
            return None
        records = await event_log.read(self._part, after, most)
        if not records or any(one.fault is not None for one in records):
            return None
        await self._make_tables(epoch)
        first, last = records[0].first_offset, records[-1].offset
        await self._spare.load(records, first, last)
        found = len(await self._spare.keys())
        if found != events_between(records, first, last):
            return None
        await self._spare.read_points(series, judged=False)
        await self._on_step(AHEAD)
        return Staged(after, records)

    async def _make_tables(self, epoch: int) -> None:
        if self._spare.scratch.epoch == epoch:
            return
        await self._spare.create(epoch)
        async with self._parts.database.transaction() as conn:
            # Made too late, they would be of a worker that is cut off already.
            await state.fence(conn, self._part, epoch)
