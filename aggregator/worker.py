"""The sink: from the event log to the event store, each event once, whatever dies on the way.

For each partition: read a range, record it as a plan, apply it to every table, commit the
position. Every insert carries a deduplication token of the plan and is one block, so that a plan
that was cut short is applied again from the start and completes just what is missing. Nothing in
a plan depends on the time or on state that could change in between: its series, its skipped
records and its clock are recorded with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from aggregator import rows
from aggregator.dedupe import SeenKeys
from aggregator.following import Follower
from aggregator.metrics import SinkMetrics
from aggregator.registry import SeriesRegistry
from aggregator.series import Series
from aggregator.staging import Staged, Staging, all_done
from aggregator.stores import state
from aggregator.stores.engine import Engine, UnreadableError
from aggregator.stores.state import Plan
from meterline.db.engine import Database
from meterline.eventlog.port import EventLog, Record
from meterline.kernel.clock import Clock

log = structlog.get_logger(__name__)

Step = Callable[[str], Awaitable[None]]
"""Called after each named step of a plan; fault tests stop the process there."""

STEPS = (
    "read", "planned", "staged", "judged", "events", "keys", "points", "faults", "committed",
    "trimmed",
)  # fmt: skip

# One block an insert: the deduplication token then stands for all of it.
_ONE_BLOCK: dict[str, str | int] = {
    "async_insert": 0,
    "max_threads": 1,
    "max_insert_threads": 1,
    "max_insert_block_size": 100_000_000,
    "min_insert_block_size_rows": 100_000_000,
    "min_insert_block_size_bytes": 16 << 30,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
}


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How the sink batches and when it counts as stalled."""

    max_plan_events: int = 100_000
    linger_seconds: float = 0.2
    """How long a small plan may wait for more events, counted from the plan before."""
    retry_seconds: float = 1.0
    """The wait after a failed plan; doubled up to 30 s while it keeps failing."""
    stalled_after_seconds: float = 30.0
    """Without progress for so long although events wait, the sink is not ready."""
    trim_log: bool = True


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """Where the sink is in one partition. Lag is measured from what the log has accepted."""

    part: int
    position: int
    end: int
    lag_seconds: float
    stalled: bool
    last_error: str | None


async def no_step(_name: str) -> None:
    """The default: no fault is injected."""


class PartitionSink:
    """Applies one partition of the log, a plan at a time."""

    def __init__(
        self,
        part: int,
        event_log: EventLog,
        engine: Engine,
        database: Database,
        registry: SeriesRegistry,
        seen: SeenKeys,
        clock: Clock,
        options: SinkOptions,
        metrics: SinkMetrics,
        follower: Follower,
        on_step: Step = no_step,
    ) -> None:
        self.part = part
        self._follower = follower
        self._log = event_log
        self._engine = engine
        self._database = database
        self._registry = registry
        self._seen = seen
        self._clock = clock
        self._options = options
        self._metrics = metrics
        self._on_step = on_step
        self._staging = Staging(engine, part, seen)
        self._plan: Plan | None = None
        self._moved = asyncio.Condition()
        self._oldest: datetime | None = None
        self._progress_at = clock()
        self._last_error: str | None = None
        self.position = 0

    async def start(self) -> None:
        """Read where the last process stopped; a plan it left is applied first."""
        await self._staging.create()
        await self._recall()
        end = await self._log.end(self.part)
        if end < self.position:
            # New events at offsets that are behind the position would never be read.
            log.warning("the event log is behind the store", end=end, position=self.position)
            await self._log.skip(self.part, self.position)

    async def _recall(self) -> None:
        """Learn from the database how far this partition is, and what was begun."""
        async with self._database.read() as conn:
            self.position = await state.load_position(conn, self.part)
            self._plan = await state.load_plan(conn, self.part)
        async with self._moved:
            self._moved.notify_all()

    async def run(self, stopping: asyncio.Event) -> None:
        """Apply plans until `stopping` is set. Failures are retried for ever, with back-off."""
        delay = self._options.retry_seconds
        while not stopping.is_set():
            try:
                if self._last_error is not None:
                    # What failed may have been the answer to a commit, and not the commit.
                    await self._recall()
                await self.run_once(stopping)
                delay = self._options.retry_seconds
                self._last_error = None
            except Exception as error:
                self._last_error = f"{type(error).__name__}: {error}"[:500]
                self._metrics.failures.inc()
                log.exception("a plan failed and will be tried again", partition=self.part)
                await _wait(stopping, delay)
                delay = min(2 * delay, 30.0)

    async def run_once(self, stopping: asyncio.Event) -> None:
        """Wait for records and apply one plan of them; returns at once when stopping."""
        if self._plan is None and not await self._wait_for_records(stopping):
            return
        async with self._registry.exclusive:
            plan, records = await self._next_plan()
            if plan is not None:
                await self._apply(plan, records)

    async def _wait_for_records(self, stopping: asyncio.Event) -> bool:
        if not await self._log.wait(self.part, self.position, 0.5):
            self._oldest = None
            self._progress_at = self._clock()
            return False
        if await self._log.count(self.part, self.position) >= self._options.max_plan_events:
            return True
        # A clock that was set back must not make it wait until the old time comes again.
        elapsed = max(0.0, (self._clock() - self._progress_at).total_seconds())
        if elapsed < self._options.linger_seconds:
            await _wait(stopping, self._options.linger_seconds - elapsed)
        return True

    async def _next_plan(self) -> tuple[Plan | None, Sequence[Record]]:
        """The plan that was left over, or a new one over what waits in the log."""
        if self._plan is not None:
            return self._plan, await self._read_again(self._plan)
        records = await self._log.read(self.part, self.position, self._options.max_plan_events)
        if not records:
            return None, ()
        self._oldest = records[0].ingested_at
        await self._on_step("read")
        plan = Plan(
            part=self.part,
            first=records[0].offset,
            last=records[-1].offset,
            planned_at=self._clock(),
            series=tuple(series.id for series in self._registry.live()),
        )
        await self._save(plan)
        return plan, records

    async def _read_again(self, plan: Plan) -> Sequence[Record]:
        """The records of a plan, and not all that waits behind it."""
        records: list[Record] = []
        after = plan.first - 1
        while after < plan.last:
            read = await self._log.read(self.part, after, self._options.max_plan_events)
            if not read:
                break
            records += [record for record in read if record.offset <= plan.last]
            after = read[-1].offset
        return records

    async def _save(self, plan: Plan) -> None:
        async with self._database.transaction() as conn:
            await state.save_plan(conn, plan)
        self._plan = plan
        await self._on_step("planned")

    async def _apply(self, plan: Plan, records: Sequence[Record]) -> None:
        started = self._clock()
        plan, staged = await self._stage(plan, records)
        series = [one for one in self._registry.live() if one.id in set(plan.series)]
        faults = await self._staging.read_points(series, staged.judged, plan.first, plan.last)
        await self._insert(plan, series, staged, faults)
        # Before the commit: a key that was stored must never seem new, whatever fails from here.
        await asyncio.to_thread(self._seen.add, staged.keys["low"])
        await self._commit(plan, series, faults)
        await self._on_step("committed")
        await self._advance(plan)
        self._metrics.applied(
            events=staged.stored - staged.conflicts,
            duplicates=staged.duplicates,
            conflicts=staged.conflicts,
            faults=faults,
            seconds=(self._clock() - started).total_seconds(),
        )
        if self._options.trim_log:
            await self._log.trim(self.part, plan.last)
            await self._on_step("trimmed")

    async def _commit(self, plan: Plan, series: Sequence[Series], faults: int) -> None:
        """Move the position past the plan, and tell the follower, in one transaction."""
        async with self._database.transaction() as conn:
            # Who begins to follow a series does so in a transaction too: before this one, which
            # then tells it, or after it, when the position says that it must read the store.
            wanted = set(plan.series).intersection(await self._follower.series(conn))
            if wanted:
                usages = await self._staging.usages(wanted, plan.planned_at)
                await self._follower.apply(conn, usages)
            if faults:
                await self._follower.rejected(conn, lambda: self._faults(plan, series))
            await state.commit_plan(conn, plan)

    async def _faults(self, plan: Plan, series: Sequence[Series]) -> Sequence[tuple[str, str, int]]:
        """Why values of a plan's events could not be used, and how many."""
        namespaces = {one.id: one.namespace for one in series}
        found = await self._engine.query(
            "SELECT series, reason, count() FROM faults"
            f" WHERE part = {plan.part} AND off BETWEEN {plan.first} AND {plan.last}"
            " GROUP BY series, reason ORDER BY series, reason",
            {},
        )
        return [(namespaces[one], why, count) for one, why, count in found if one in namespaces]

    async def _stage(self, plan: Plan, records: Sequence[Record]) -> tuple[Plan, Staged]:
        kept = [record for record in records if record.offset not in plan.skipped]
        try:
            await self._staging.load(kept)
        except UnreadableError:
            plan, kept = await self._set_aside(plan, kept)
            await self._staging.load(kept)
        await self._on_step("staged")
        staged = await self._staging.judge(plan.first)
        await self._on_step("judged")
        return plan, staged

    async def _set_aside(self, plan: Plan, records: Sequence[Record]) -> tuple[Plan, list[Record]]:
        """Move records that the engine cannot read to the dead-letter list."""
        reasons = await self._staging.poison(records)
        plan = replace(plan, skipped=(*plan.skipped, *reasons))
        async with self._database.transaction() as conn:
            for record in records:
                if record.offset in reasons:
                    await state.add_dead_letter(conn, record, reasons[record.offset], self._clock())
            await self._follower.rejected(conn, lambda: _dead_letters(records, reasons))
            await state.save_plan(conn, plan)
        self._plan = plan
        self._metrics.dead_letters.inc(len(reasons))
        log.error("records set aside as dead letters", partition=self.part, offsets=[*reasons])
        return plan, [record for record in records if record.offset not in reasons]

    async def _insert(
        self, plan: Plan, series: Sequence[Series], staged: Staged, faults: int
    ) -> None:
        """Fill every table, side by side."""
        token = f"{plan.part}-{plan.first}-{plan.last}"
        settings = {**_ONE_BLOCK, "insert_deduplication_token": token}
        part, judged = plan.part, staged.judged

        async def insert(name: str, sql: str, params: dict[str, object]) -> None:
            await self._engine.execute(sql, params, settings)
            await self._on_step(name)

        stored_at = {"stored_at": round(plan.planned_at.timestamp() * 1000)}
        jobs = [
            insert("events", rows.insert_events(part, judged), dict(stored_at)),
            insert("keys", rows.insert_keys(part, judged), {}),
            insert("points", rows.insert_points(part), {}),
        ]
        if faults:
            of_faults = rows.insert_faults(part, series)
            jobs.append(insert("faults", of_faults.sql, of_faults.params))
        await all_done(*jobs)

    async def _advance(self, plan: Plan) -> None:
        self._plan = None
        self.position = plan.last
        self._progress_at = self._clock()
        async with self._moved:
            self._moved.notify_all()

    @property
    def planned_through(self) -> int:
        """The last offset whose plan is fixed, applied or not."""
        return self._plan.last if self._plan else self.position

    async def wait_visible(self, offset: int, timeout_seconds: float) -> bool:
        """Wait until everything up to `offset` is in the store. False when the time ran out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds), self._moved:
                await self._moved.wait_for(lambda: self.position >= offset)
        return self.position >= offset

    async def visible_until(self) -> datetime:
        """Every event that was acknowledged before this instant is in the store."""
        now = self._clock()
        if await self._log.end(self.part) <= self.position:
            return now
        return min(self._oldest or self._progress_at, now)

    async def status(self) -> PartitionStatus:
        """Where this partition's sink is."""
        end = await self._log.end(self.part)
        now = self._clock()
        behind = end > self.position
        lag = (now - self._oldest).total_seconds() if behind and self._oldest else 0.0
        idle = (now - self._progress_at).total_seconds()
        return PartitionStatus(
            self.part,
            self.position,
            end,
            lag,
            behind and idle > self._options.stalled_after_seconds,
            self._last_error,
        )


async def _dead_letters(
    records: Sequence[Record], reasons: Mapping[int, str]
) -> Sequence[tuple[str, str, int]]:
    return [
        (record.namespace, reasons[record.offset], 1)
        for record in records
        if record.offset in reasons
    ]


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
