"""The sink's worker: from one partition of the event log to the event store, each event once.

Take the partition; then, again and again: read a range, record it as a plan, apply it to every
table, commit the position. Every insert carries a deduplication token of the plan and is one
block, so that a plan that was cut short is applied again from the start and completes just what is
missing. Nothing in a plan depends on the time or on state that could change in between: its
series, its skipped events and its clock are recorded with it.

Whoever takes the partition next is safe from this worker (`stores.state`, `scratch`), whatever it
still has under way.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.ahead import ReadingAhead
from aggregator.ahead import Staged as StagedAhead
from aggregator.applying import Applying
from aggregator.cutting import between, events_between, last_ingested, without
from aggregator.parts import (
    BACKFILL,
    STEPS,
    PartitionStatus,
    SinkOptions,
    SinkParts,
    Step,
    no_step,
)
from aggregator.progress import Progress
from aggregator.seen import KnownKeys
from aggregator.series import Series
from aggregator.staging import Staged, Staging
from aggregator.stores import state
from aggregator.stores.engine import UnreadableError
from aggregator.stores.state import FencedError, Plan
from aggregator.telling import Telling
from meterline.eventlog.port import Record
from meterline.kernel.errors import UnavailableError

__all__ = [
    "STEPS",
    "PartitionSink",
    "PartitionStatus",
    "SinkOptions",
    "SinkParts",
    "Step",
    "no_step",
]

log = structlog.get_logger(__name__)


class PartitionSink:
    """Applies one partition of the log, a plan at a time."""

    def __init__(self, part: int, parts: SinkParts, on_step: Step = no_step) -> None:
        self.part = part
        self._parts = parts
        self._log = parts.log
        self._database = parts.database
        self._clock = parts.clock
        self._options = parts.options
        self._on_step = on_step
        self._keys = KnownKeys(parts.engine, part, parts.options.retry_seconds)
        self._staging = Staging(parts.engine, part, self._keys)
        spare = Staging(parts.engine, part, self._keys, slot=1)
        self._ahead = ReadingAhead(part, parts, spare, on_step)
        self._applying = Applying(parts.engine, part, on_step)
        self._plan: Plan | None = None
        self._loaded = False
        self._epoch: int | None = None
        self._last_epoch = -1
        self.progress = Progress(part, parts.log, parts.clock, parts.options)
        self.idle = False
        """Whether it only waits for events."""

    async def take(self) -> None:
        """Become the partition's worker, and learn how far it is and what was begun."""
        # Who cannot reach the log could do nothing with a partition but keep it from others.
        await self._log.end(self.part)
        async with self._database.transaction() as conn:
            taken = await state.take_partition(conn, self.part, self._parts.owner)
        # From here on the worker before can write nothing to the database; once its scratch
        # tables are gone, nothing to the store. What it has under way there carries the tokens
        # of a plan that is applied again here.
        await self._staging.create(taken.epoch)
        async with self._database.transaction() as conn:
            # Made too late, they would be of a worker that is cut off already.
            await state.fence(conn, self.part, taken.epoch)
        if taken.epoch != self._last_epoch + 1:
            # Others were here, or this process is new to it. What the worker before stores even
            # later is of the plan that it left, which is applied again here.
            await self._keys.anew()
        self._epoch = self._last_epoch = taken.epoch
        self._plan = taken.plan
        await self.progress.move(taken.position)
        end = await self._log.end(self.part)
        if end < taken.position:
            # New events at offsets that are behind the position would never be read.
            log.warning("the event log is behind the store", end=end, position=taken.position)
            await self._log.skip(self.part, taken.position)

    async def run(self, stopping: asyncio.Event) -> None:
        """Apply plans until `stopping` is set. Failures are retried for ever, with back-off."""
        try:
            await self._run(stopping)
        finally:
            await self._ahead.drop()
            await self._keys.close()
            if stopping.is_set() and self._epoch is not None:
                with suppress(Exception):
                    await self._staging.drop()
                    await self._ahead.drop_tables()

    async def _run(self, stopping: asyncio.Event) -> None:
        delay = self._options.retry_seconds
        while not stopping.is_set():
            try:
                if self._epoch is None:
                    await self.take()
                await self.run_once(stopping)
                delay = self._options.retry_seconds
                self.progress.last_error = None
            except FencedError as error:
                await self._ahead.drop()
                await self._let_go(stopping, error)
            except Exception as error:
                await self._ahead.drop()
                # What failed may have been the answer to a commit, and not the commit: so the
                # partition is taken anew, which says how far it is.
                self._epoch = None
                self.progress.last_error = f"{type(error).__name__}: {error}"[:500]
                self._parts.metrics.failures.inc()
                # What is away says so itself; anything else is worth its traceback.
                tell = log.warning if isinstance(error, UnavailableError) else log.exception
                tell(
                    "a plan failed and will be tried again",
                    partition=self.part,
                    reason=self.progress.last_error,
                )
                await _wait(stopping, delay)
                delay = min(2 * delay, 30.0)

    async def _let_go(self, stopping: asyncio.Event, error: FencedError) -> None:
        """Another one has the partition. Should the log leave it with us all the same, take it
        back, but not before it has had its time, and not while there is nothing to do. What we
        read ahead is no reason: a log that cannot be reached gave the partition away, maybe."""
        self._epoch, self._plan = None, None
        self.progress.last_error = str(error)
        log.warning("lost a partition to another worker", partition=self.part)
        await _wait(stopping, self._options.release_seconds)
        while not stopping.is_set():
            with suppress(Exception):
                async with self._database.read() as conn:
                    position = (await state.load_positions(conn)).get(self.part, 0)
                self.progress.position = position
                end = await self._log.end(self.part)
                if end > position and await self._log.wait(self.part, position, 0.5):
                    return
            await _wait(stopping, self._options.release_seconds)

    async def run_once(self, stopping: asyncio.Event) -> None:
        """Wait for records and apply one plan of them; returns at once when stopping."""
        ready = await self._ahead.ready()
        if self._plan is None and not ready and not await self._wait_for_records(stopping):
            return
        async with self._ahead.turn() as ahead:
            if stopping.is_set() and self._plan is None:
                return
            plan, records = await self._next_plan(ahead)
            if plan is not None:
                await self._apply(plan, records)

    async def _wait_for_records(self, stopping: asyncio.Event) -> bool:
        self.idle = True
        try:
            found = await self._log.wait(self.part, self._position, 0.5)
        finally:
            self.idle = False
        if not found:
            self.progress.rests()
            return False
        if await self._log.count(self.part, self._position) >= self._options.max_plan_events:
            return True
        # A clock that was set back must not make it wait until the old time comes again.
        elapsed = max(0.0, (self._clock() - self.progress.at).total_seconds())
        if elapsed < self._options.linger_seconds:
            await _wait(stopping, self._options.linger_seconds - elapsed)
        return True

    async def _next_plan(self, ahead: StagedAhead | None) -> tuple[Plan | None, Sequence[Record]]:
        """The plan that was left over, or a new one over what waits in the log."""
        self._loaded = False
        if self._plan is not None:
            return await self._again(self._plan)
        if ahead is not None and ahead.after == self._position:
            self._staging = self._ahead.swap(self._staging)
            self._loaded = True
            records = ahead.records
        else:
            records = await self._log.read(self.part, self._position, self._options.max_plan_events)
        if not records:
            return None, ()
        self.progress.begins(records[0].ingested_at)
        await self._on_step("read")
        plan = Plan(
            part=self.part,
            first=records[0].first_offset,
            last=records[-1].offset,
            planned_at=self._clock(),
            series=(),
        )
        async with self._parts.registry.gate.shared() as conn:
            plan = await state.save_plan(conn, plan, self._mine)
        self._plan = plan
        await self._on_step("planned")
        return plan, records

    async def _again(self, plan: Plan) -> tuple[Plan, Sequence[Record]]:
        """A plan that was begun, with its records, and not all that waits behind it."""
        async with self._database.read() as conn:
            since = await state.plans_made(conn) - plan.seq
        if since > self._options.redo_within_plans and not plan.slow:
            log.warning("applying an old plan without its tokens", partition=self.part, since=since)
            plan = replace(plan, slow=True)
            await self._change(plan)
        records: list[Record] = []
        after = plan.first - 1
        while after < plan.last:
            read = await self._log.read(self.part, after, self._options.max_plan_events)
            if not read:
                break
            records += between(read, plan.first, plan.last)
            after = read[-1].offset
        return plan, records

    async def _change(self, plan: Plan) -> None:
        async with self._database.transaction() as conn:
            await state.change_plan(conn, plan, self._mine)
        self._plan = plan

    async def _apply(self, plan: Plan, records: Sequence[Record]) -> None:
        started = self._clock()
        plan, staged = await self._stage(plan, records)
        series = await self._parts.registry.named(plan.series)
        faults = await self._staging.read_points(series, staged.judged)
        if plan.slow:
            await self._finish_slowly(plan, records, series, staged, faults)
        else:
            await self._ahead.begin(plan.last, series, self._mine)
            await self._applying.insert(plan, self._staging.scratch, series, staged, faults)
            told = await self._before_commit(plan, staged)
            commit = partial(self._commit, plan, records, series, told, faults)
            # What was rejected is read in the transaction.
            await told.commit(commit, in_one_go=not faults)
        await self._on_step("committed")
        await self._advance(plan)
        self._parts.metrics.applied(
            events=staged.stored - staged.conflicts,
            duplicates=staged.duplicates,
            conflicts=staged.conflicts,
            faults=faults,
            seconds=(self._clock() - started).total_seconds(),
        )
        if self._options.trim_log:
            await self._log.trim(self.part, plan.last)
            await self._on_step("trimmed")

    async def _finish_slowly(
        self,
        plan: Plan,
        records: Sequence[Record],
        series: Sequence[Series],
        staged: Staged,
        faults: int,
    ) -> None:
        """Insert what is missing, and make the totals of it anew, while all else stands still.

        Totals do not say which plan they are from: so nobody may add to them meanwhile.
        """
        registry = self._parts.registry
        async with (
            registry.gate.mutex(BACKFILL) as mutex,
            registry.gate.standing_still(state.only_slow_plans) as held,
        ):
            work = self._applying.insert_missing(
                plan, self._staging.scratch, series, staged, faults, registry.backfill
            )
            await held.during(mutex.during(work))
            told = await self._before_commit(plan, staged)
            await told.read_all()
            async with held.transaction() as conn:
                await self._commit(plan, records, series, told, faults, conn)

    async def _before_commit(self, plan: Plan, staged: Staged) -> Telling:
        """Read what is to be told, and make sure that it and what was inserted were whole."""
        told = Telling(self._staging, staged, plan, self._database, self._parts.follower)
        await told.prepare()
        await self._staging.check(staged)
        # A key that was stored must never seem new, whatever fails from here.
        await asyncio.to_thread(self._keys.seen.add, staged.keys["low"])
        return told

    async def _commit(
        self,
        plan: Plan,
        records: Sequence[Record],
        series: Sequence[Series],
        told: Telling,
        faults: int,
        conn: AsyncConnection,
    ) -> None:
        """Move the position past the plan, and tell the follower, in one transaction."""
        await state.commit_plan(conn, plan, self._mine, last_ingested(records, plan.last))
        await told.tell(conn)
        if faults:
            read = partial(self._applying.faults, plan, series)
            await self._parts.follower.rejected(conn, read)

    async def _stage(self, plan: Plan, records: Sequence[Record]) -> tuple[Plan, Staged]:
        unusable = [(one, one.fault) for one in records if one.fault is not None]
        if unusable and not {one.offset for one, _ in unusable} <= set(plan.skipped):
            plan = await self._set_aside(plan, unusable)
        kept = without(records, plan.skipped)
        try:
            if not self._loaded:
                await self._staging.load(kept, plan.first, plan.last)
        except UnreadableError:
            bad = await self._staging.poison(kept, plan.first, plan.last)
            plan = await self._set_aside(plan, bad)
            kept = without(kept, plan.skipped)
            await self._staging.load(kept, plan.first, plan.last)
        await self._on_step("staged")
        expected = events_between(kept, plan.first, plan.last)
        staged = await self._staging.judge(plan.first, expected)
        await self._on_step("judged")
        return plan, staged

    async def _set_aside(self, plan: Plan, bad: Sequence[tuple[Record, str]]) -> Plan:
        """Move what cannot be read to the dead letters, of the log and of the database."""
        offsets = {offset for record, _ in bad for offset in _offsets(record)}
        plan = replace(plan, skipped=tuple(sorted({*plan.skipped, *offsets})))
        for record, reason in bad:
            await self._log.dead_letter(record, reason)
        async with self._database.transaction() as conn:
            await state.change_plan(conn, plan, self._mine)
            for record, reason in bad:
                await state.add_dead_letter(conn, record, reason, self._clock())
            await self._parts.follower.rejected(conn, lambda: _dead_letters(bad))
        self._plan = plan
        self._parts.metrics.dead_letters.inc(len(bad))
        log.error("records set aside as dead letters", partition=self.part, offsets=sorted(offsets))
        return plan

    async def _advance(self, plan: Plan) -> None:
        self._plan = None
        self.progress.at = self._clock()
        await self.progress.move(plan.last)

    @property
    def _position(self) -> int:
        return self.progress.position

    @property
    def _mine(self) -> int:
        assert self._epoch is not None
        return self._epoch


def _offsets(record: Record) -> Sequence[int]:
    return [record.offset] if record.places is None else record.places.offsets


async def _dead_letters(bad: Sequence[tuple[Record, str]]) -> Sequence[tuple[str, str, int]]:
    return [(record.namespace, reason, 1) for record, reason in bad]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
