"""The move as a whole: which stage is next, and what it does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.moving import Chunk, Place, StoreMover
from aggregator.registry import SeriesRegistry
from aggregator.stores import state
from aggregator.stores.meters import SqlMeterStore
from aggregator.stores.series import series_table, series_users
from aggregator.stores.state import MOVED, sink_partitions
from aggregator.upkeep import Upkeep
from ingest.kafka import key_hashes
from meterline.kernel.clock import Clock, system_clock
from meterline.kernel.errors import ConflictError, ValidationError
from meterline.server.moving import tables
from meterline.server.moving.marker import Move, identity, load_move, save_move
from meterline.server.moving.source import Extent, bring_to_rest, opened_source
from meterline.server.moving.telling import Step, Tell, no_step
from meterline.server.moving.verify import Report, compare
from meterline.server.notified import NotifyingFollower
from meterline.server.patience import patiently
from meterline.server.roles import Parts
from meterline.server.settings import Settings
from meterline.server.stores import (
    Stores,
    migrate_store,
    opened_database,
    opened_engines,
    opened_log,
)

T = TypeVar("T")

_LOOK_SECONDS = 0.2
_NONE = Parts(ingests=False, stores=False, answers=False)


@dataclass(frozen=True, slots=True)
class Moved:
    """How a move ended: what was there before, and how the two sides compare."""

    was_done: bool
    report: Report


async def move_data(
    folder: Settings,
    settings: Settings,
    tell: Tell,
    *,
    restart: bool = False,
    clock: Clock = system_clock,
    on_step: Step = no_step,
) -> Moved:
    """Move the data folder of `folder` into the deployment of `settings`, and compare the two.

    To be called again until it returns: it goes on where it was cut short. With `restart` it throws
    away what it had moved. Servers can start on the deployment once the report agrees.
    """
    _require_shared(settings)
    async with opened_source(folder) as source:
        extent = await bring_to_rest(folder, source, tell, clock)
        await on_step("rested")
        async with _opened_target(settings) as target:
            one = _Move(source, target, settings, extent, tell, clock, on_step)
            return await one.run(restart)


def _require_shared(settings: Settings) -> None:
    missing = []
    if settings.eventlog.kind != "kafka":
        missing.append("eventlog.kind=kafka")
    if settings.store.kind != "clickhouse":
        missing.append("store.kind=clickhouse")
    if settings.database.is_embedded:
        missing.append("database.url=postgresql://…")
    if missing:
        raise ValidationError(
            "the settings must name the deployment to move to; they lack " + ", ".join(missing)
        )


@asynccontextmanager
async def _opened_target(settings: Settings) -> AsyncIterator[Stores]:
    """The deployment's backends, at the newest schemas, and its topics."""
    async with (
        opened_log(settings, _NONE) as log,
        opened_database(settings) as database,
        opened_engines(settings) as engines,
    ):
        await migrate_store(settings, engines.sink, database)
        yield Stores(log, database, engines)


class _Move:
    """One run of it."""

    def __init__(
        self,
        source: Stores,
        target: Stores,
        settings: Settings,
        extent: Extent,
        tell: Tell,
        clock: Clock,
        on_step: Step,
    ) -> None:
        self._source = source
        self._target = target
        self._settings = settings
        self._extent = extent
        self._tell = tell
        self._clock = clock
        self._on_step = on_step
        self._move = Move("", "events", 0, {})

    async def run(self, restart: bool) -> Moved:
        """All stages that are left."""
        await self._begin(restart)
        was_done = self._move.stage == "done"
        if self._move.stage == "events":
            await self._move_events()
        if self._move.stage == "keys":
            await self._move_erased()
        if self._move.stage == "tables":
            await self._copy_tables()
        if self._move.stage == "meters":
            await self._fill_meters()
        report = await compare(
            self._source, self._target, self._tell, self._clock, finished=was_done
        )
        if not was_done and report.agrees:
            await self._save(self._move.reached("done"))
            await self._on_step("done")
        return Moved(was_done, report)

    async def _begin(self, restart: bool) -> None:
        name = await identity(self._source.database, self._clock())
        async with self._source.database.read() as conn:
            await tables.require_known(conn)
        async with self._target.database.read() as conn:
            await tables.require_known(conn)
            found = await load_move(conn)
        if found is None:
            await self._require_empty(name)
            found = Move(name, "events", 1, self._extent.texts())
            await self._save(found)
        elif found.id != name:
            raise ConflictError("another data folder was moved into this deployment before")
        elif found.stage == "done":
            if restart:
                raise ConflictError("the move is done, and the deployment in use: nothing to undo")
        elif restart or found.source != self._extent.texts():
            self._tell.say("begins anew" if restart else "the folder has changed: begins anew")
            found = await self._begin_anew(found)
        self._move = found
        await self._on_step("begun")

    async def _require_empty(self, name: str) -> None:
        """`ConflictError` unless nobody ever used the deployment."""
        async with self._target.database.read() as conn:
            filled = await tables.filled_tables(conn)
            sinks = (await conn.execute(sa.select(sink_partitions.c.part))).all()
        if sinks:
            filled.append("sink_partitions: a sink was started on it")
        if not await self._mover(name).is_empty():
            filled.append("events")
        if filled:
            raise ConflictError(
                "the deployment is not empty, and nothing is ever mixed into what it has:"
                f" {', '.join(filled)}. Name an empty PostgreSQL database and ClickHouse database"
            )

    async def _begin_anew(self, before: Move) -> Move:
        """Throw away what this command moved; nobody else has used the deployment."""
        found = Move(before.id, "events", before.generation + 1, self._extent.texts())
        async with self._target.database.patient() as conn:
            await self._require_no_sink(conn)
            await tables.clear_tables(conn)
            for table in (sink_partitions, series_table, series_users):
                await conn.execute(sa.delete(table))
            await save_move(conn, found, self._clock())
        await self._mover(found.id).clear()
        return found

    async def _save(self, move: Move) -> None:
        async def save() -> None:
            async with self._target.database.transaction() as conn:
                await save_move(conn, move, self._clock())

        await self._patiently(save)
        self._move = move

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        return await patiently(work, self._settings.server.start_wait_seconds)

    def _mover(self, name: str) -> StoreMover:
        partitions = self._settings.kafka.partitions
        return StoreMover(
            self._source.store.sink,
            self._target.store.sink,
            lambda keys: [one % partitions for one in key_hashes(keys)],
            name,
        )

    @property
    def _named_mover(self) -> StoreMover:
        return self._mover(f"{self._move.id}-{self._move.generation}")

    async def _move_events(self) -> None:
        mover, progress = self._named_mover, self._move.progress
        done = progress.get("done", 0)
        after = msgspec.convert(progress["after"], Place) if "after" in progress else None
        self._tell.begin("events", self._extent.events, done)
        # A run before this one may have been cut short within its next chunk.
        again = True
        chunk = await mover.next_chunk(after)
        while chunk is not None:
            # Chunks follow from the source, so the next one is read beside.
            following = asyncio.create_task(mover.next_chunk(chunk.through))
            try:
                await self._move_chunk(mover, chunk, again)
                done += chunk.count
                through = msgspec.to_builtins(chunk.through)
                await self._save(self._move.reached("events", after=through, done=done))
                await self._on_step("chunk")
                self._tell.advance(chunk.count)
                chunk, again = await following, False
            finally:
                following.cancel()
        await self._save(self._move.reached("keys"))

    async def _move_chunk(self, mover: StoreMover, chunk: Chunk, again: bool) -> None:
        await self._patiently(lambda: mover.move_keys(chunk, again=again))
        await self._on_step("keys")
        await self._patiently(lambda: mover.move_events(chunk, again=again))
        await self._on_step("events")

    async def _move_erased(self) -> None:
        """Keys of erased events, so that they never count again."""
        mover = self._named_mover
        ranges = await mover.erased_ranges(self._extent.position)
        done = self._move.progress.get("ranges", 0)
        self._tell.begin("keys of erased events", self._extent.keys - self._extent.events)
        for number, one in enumerate(ranges[done:], done + 1):
            again = number == done + 1
            count = await self._patiently(lambda: mover.move_erased(one, again=again))  # noqa: B023
            await self._on_step("erased")
            await self._save(self._move.reached("keys", ranges=number))
            self._tell.advance(count)
        await self._save(self._move.reached("tables"))

    async def _copy_tables(self) -> None:
        """All tables, and up to where the moved events reach, in one transaction."""
        async with self._source.database.read() as source:
            self._tell.begin("rows of the database", await tables.count_rows(source))
            async with self._target.database.patient() as target:
                await self._require_no_sink(target)
                await state.check_partitions(target, self._settings.kafka.partitions)
                for table in tables.moved_tables():
                    async for count in tables.copy_table(source, target, table):
                        self._tell.advance(count)
                if self._extent.position:
                    place = {"part": MOVED, "position": self._extent.position, "epoch": 0}
                    values = {**place, "owner": "migrate-data"}
                    await target.execute(sa.insert(sink_partitions).values(**values))
                await self._on_step("copied")
                moved = self._move.reached("meters")
                await save_move(target, moved, self._clock())
        self._move = moved
        await self._on_step("tables")

    async def _require_no_sink(self, conn: AsyncConnection) -> None:
        query = sa.select(sink_partitions.c.part).where(sink_partitions.c.part != MOVED)
        if (await conn.execute(query)).first() is not None:
            raise ConflictError(
                "a sink was started on the deployment meanwhile: what it stored cannot be told"
                " from what is moved. Stop it, and move into empty databases"
            )

    async def _fill_meters(self) -> None:
        """Make the series of every meter; until they are whole, queries would be slow."""
        database, engine = self._target.database, self._target.store.sink
        registry = SeriesRegistry(database, engine, self._clock)
        upkeep = Upkeep(database, registry, NotifyingFollower(self._clock), self._clock)
        meters = await SqlMeterStore(database).all()
        self._tell.begin("meters filled", len(meters))
        await registry.start(meters)
        upkeep.know(meters)
        stopping = asyncio.Event()
        running = asyncio.create_task(upkeep.run(stopping))
        try:
            told = 0
            while registry.unfinished():
                done = sum(progress == "ready" for progress, _ in map(registry.progress, meters))
                self._tell.advance(done - told)
                told = done
                await asyncio.sleep(_LOOK_SECONDS)
            self._tell.advance(len(meters) - told)
            await upkeep.settled()
        finally:
            stopping.set()
            upkeep.wake()
            await running
        await self._on_step("filled")
