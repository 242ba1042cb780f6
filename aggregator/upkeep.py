"""What one process at a time does for all: back-fills, deletions and purges.

Whoever leads holds a lock of the database and has a number. The number is in the name of a scratch
table that every insert of a back-fill reads (`scratch.Lease`), and is compared whenever it writes
to the database: so a leader that was deposed without noticing it can add nothing anywhere.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.backfill import positions_reached
from aggregator.following import Follower
from aggregator.freshness import Freshness
from aggregator.parts import BACKFILL
from aggregator.registry import SeriesRegistry
from aggregator.series import SeriesKey, series_key
from aggregator.stores import series as stored
from aggregator.stores import state
from aggregator.stores.meters import SqlMeterStore
from aggregator.stores.series import StoredSeries
from meterline.db.engine import Database
from meterline.db.locks import Held
from meterline.kernel.clock import Clock
from meterline.kernel.errors import UnavailableError
from meterline.kernel.meters import Meter

log = structlog.get_logger(__name__)

_PREPARE_AT_ONCE = 20_000
_RETRY_SECONDS = 5.0
_LOOK_SECONDS = 1.0
_SOON_SECONDS = 0.2
_CATCH_UP_SECONDS = 30.0
_ERASE_SECONDS = 120.0
_STRAY_AFTER = timedelta(minutes=10)
"""A process that made a series for a meter writes the meter at once, or has died."""
_KEEP_DROPPED = timedelta(minutes=1)
"""Queries of other processes that began before a series was dropped may still read it."""


class Upkeep:
    """The work of the leader, if this process is it; else waits to be."""

    def __init__(
        self, database: Database, registry: SeriesRegistry, follower: Follower, clock: Clock
    ) -> None:
        self._database = database
        self._registry = registry
        self._backfill = registry.backfill
        self._follower = follower
        self._clock = clock
        self._shared = database.dialect != "sqlite"
        self._working = asyncio.Lock()
        self._leader: int | None = None
        self._made_at = clock()
        self._known: list[tuple[str, SeriesKey]] = []
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        registry.hasten = self._hasten
        registry.changed = self.wake

    async def run(self, stopping: asyncio.Event) -> None:
        """Lead as soon as nobody else does, until `stopping` is set."""
        while not stopping.is_set():
            try:
                async with self._registry.gate.leadership("upkeep") as held:
                    if held is not None:
                        await self._lead(held, stopping)
            except Exception:
                log.exception("the upkeep failed and will begin anew")
            finally:
                self._leader = None
            if not stopping.is_set():
                await _wait(stopping, _LOOK_SECONDS)

    async def _lead(self, held: Held, stopping: asyncio.Event) -> None:
        async with self._database.transaction() as conn:
            leader = await stored.take_lead(conn)
        await self._backfill.lead(leader)
        self._leader = leader
        await self._drop_strays(leader)
        while not stopping.is_set():
            await held.check()
            self._work.clear()
            try:
                await self._registry.refresh()
                async with self._working:
                    again = await held.during(self._one_step(leader))
            except stored.DeposedError:
                raise
            except Exception:
                log.exception("a back-fill failed and will be tried again")
                await self._registry.reload()
                again = False
            if not again:
                if not self._work.is_set():
                    self._idle.set()
                await _wait(self._work, self._pause())

    def _pause(self) -> float:
        if self._registry.unfinished():
            # It waits for the sink to reach where the series begins.
            return _SOON_SECONDS
        return _LOOK_SECONDS if self._shared else _RETRY_SECONDS

    async def settled(self) -> None:
        """Wait until nothing is left to back-fill or to delete."""
        await self._idle.wait()

    def wake(self) -> None:
        """Look for work, or for the stop, now."""
        self._idle.clear()
        self._work.set()

    async def _one_step(self, leader: int) -> bool:
        """Do one piece of work; whether there was any."""
        async with self._database.read() as conn:
            purges = await stored.load_purges(conn)
            positions = await state.load_positions(conn)
            dropped = await self._deletable(conn)
        if purges:
            await self._erase(*purges[0])
            return True
        if dropped:
            await self._delete(leader, dropped)
            return True
        for one in self._registry.unfinished():
            if positions_reached(one.series, positions):
                await self._move_on(leader, one)
                return True
        return False

    async def _deletable(self, conn: AsyncConnection) -> set[int]:
        """Dropped series that nobody writes any more: no plan under way names them."""
        before = self._clock() - (_KEEP_DROPPED if self._shared else timedelta(0))
        named = {one for plan in await state.load_plans(conn) for one in plan.series}
        return await stored.dropped_ids(conn, before) - named

    async def _delete(self, leader: int, ids: set[int]) -> None:
        await self._backfill.drop(ids)
        async with self._database.transaction() as conn:
            await stored.check_lead(conn, leader)
            await stored.delete_series(conn, ids)

    async def _move_on(self, leader: int, one: StoredSeries) -> None:
        if one.in_progress:
            one = await self._undo(leader, one)
        async with self._registry.gate.mutex(BACKFILL) as held:
            await held.during(self._fill(leader, one))

    async def _undo(self, leader: int, one: StoredSeries) -> StoredSeries:
        """A step that was cut short is taken back, to be begun again."""
        whole = replace(one, in_progress=False)
        async with (
            self._registry.gate.mutex(BACKFILL) as mutex,
            self._registry.gate.standing_still(state.no_plans) as held,
        ):
            await held.during(mutex.during(self._backfill.undo(one.series)))
            async with held.transaction() as conn:
                await stored.save_series(conn, whole.series, leader, in_progress=False)
        await self._registry.reload()
        return whole

    async def _fill(self, leader: int, one: StoredSeries) -> None:
        series = one.series
        if series.state == "preparing":
            if not await self._begin(leader, one):
                return
            await self._backfill.insert_exact(series)
            series = replace(series, state="backfilling")
        elif not series.gaps:
            series = replace(series, state="ready")
        else:
            part, after, before = series.gaps[0]
            through = min(after + one.step, before - 1)
            if not await self._begin(leader, one):
                return
            await self._backfill.insert_step(series, part, after, through)
            series = replace(series, done_through={**series.done_through, part: through})
        await self._save(leader, replace(one, series=series, in_progress=False))

    async def _begin(self, leader: int, one: StoredSeries) -> bool:
        """Note that a step begins; not if somebody went on with the series since it was read."""
        async with self._database.transaction() as conn:
            await stored.check_lead(conn, leader)
            if await stored.load_series(conn, [one.series.id]) != [one]:
                return False
            await stored.save_series(conn, one.series, leader, in_progress=True)
        await self._registry.reload()
        return True

    async def _save(self, leader: int, one: StoredSeries) -> None:
        async with self._database.transaction() as conn:
            await stored.save_series(conn, one.series, leader, in_progress=one.in_progress)
        await self._registry.reload()

    async def _hasten(self, one: StoredSeries) -> None:
        """Prepare a series before its turn, when that is little and nothing else is under way."""
        leader = self._leader
        if leader is None or self._working.locked():
            return
        async with self._working:
            if await self._backfill.count_exact(one.series) > _PREPARE_AT_ONCE:
                return
            async with self._registry.gate.mutex(BACKFILL) as held:
                await held.during(self._fill(leader, one))

    async def _erase(self, namespace: str, subject: str) -> None:
        async with (
            self._registry.gate.mutex(BACKFILL) as mutex,
            self._registry.gate.standing_still(state.no_plans) as held,
        ):
            await self._registry.refresh()
            live = [one.id for one in self._registry.live() if one.namespace == namespace]
            await held.during(mutex.during(self._backfill.erase(namespace, subject, live)))
            async with held.transaction() as conn:
                await self._follower.erase(conn, namespace, subject)
                await stored.finish_purge(conn, namespace, subject)

    def know(self, meters: Iterable[Meter]) -> None:
        """These meters need their series, whatever the table of meters says."""
        self._known = [(one.id, series_key(one)) for one in meters]

    async def _drop_strays(self, leader: int) -> None:
        """Drop series that no meter uses: of meters that were never written, or were cut short."""
        now = self._clock()
        before = now - _STRAY_AFTER if self._shared else self._made_at
        meters = await SqlMeterStore(self._database).all()
        needed = {*self._known, *((one.id, series_key(one)) for one in meters)}
        async with self._database.read() as conn:
            old = await stored.old_users(conn, before)
        await self._registry.refresh()
        keys = {one.id: one.key for one in self._registry.live()}
        strays = [pair for pair in old if (pair[1], keys.get(pair[0])) not in needed]
        async with self._registry.gate.exclusive() as conn:
            await stored.check_lead(conn, leader)
            for series, meter in strays:
                await stored.remove_user(conn, series, meter, now)
            await stored.drop_unused(conn, now)
        await self._registry.reload()


class Erasure:
    """Asks for purges, in any process; the one that leads carries them out."""

    def __init__(
        self, database: Database, freshness: Freshness, clock: Clock, upkeep: Upkeep | None = None
    ) -> None:
        self._database = database
        self._freshness = freshness
        self._clock = clock
        self._upkeep = upkeep

    async def purge(self, namespace: str, subject: str) -> None:
        """Erase a subject's usage for good: events, points and totals, now and on disk.

        Events that were accepted before the call are erased even if they are still in the log;
        `UnavailableError` while the sink is too far behind for that.
        """
        if not await self._freshness.wait_visible(_CATCH_UP_SECONDS):
            raise UnavailableError("accepted events are still to be stored; try again later")
        async with self._database.transaction() as conn:
            await stored.request_purge(conn, namespace, subject, self._clock())
        if self._upkeep is not None:
            self._upkeep.wake()
        pause, waited = 0.01, 0.0
        while await self._waits(namespace, subject):
            if waited > _ERASE_SECONDS:
                raise UnavailableError("the usage will be erased, but that takes a while")
            await asyncio.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, 0.5)

    async def _waits(self, namespace: str, subject: str) -> bool:
        async with self._database.read() as conn:
            return (namespace, subject) in await stored.load_purges(conn)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)
