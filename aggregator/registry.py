"""Which series there are, from the first meter that needs one to the deletion of its last point."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

import structlog

from aggregator.backfill import Backfill, positions_reached
from aggregator.series import Series, SeriesKey, series_key
from aggregator.stores import state
from aggregator.stores.state import StoredSeries
from meterline.db.engine import Database
from meterline.kernel.errors import NotFoundError, UnavailableError
from meterline.kernel.meters import Meter

log = structlog.get_logger(__name__)

Positions = Callable[[], Mapping[int, int]]
_PREPARE_AT_ONCE = 20_000
_RETRY_SECONDS = 5.0


class SeriesRegistry:
    """The live series, kept in step with the meters and back-filled in the background.

    `exclusive` is held for each plan of the sink and for each change of the set of series, so that
    a series is either wholly in a plan or not at all.
    """

    def __init__(self, database: Database, backfill: Backfill) -> None:
        self.exclusive = asyncio.Lock()
        self._database = database
        self._backfill = backfill
        self._by_key: dict[SeriesKey, StoredSeries] = {}
        self._ids: set[int] = set()
        self._users: dict[SeriesKey, set[str]] = {}
        self._dropped: list[int] = []
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._planned: Positions = dict
        self._applied: Positions = dict

    async def start(self, meters: Iterable[Meter], planned: Positions, applied: Positions) -> None:
        """Load the series and make them agree with the meters, before the sink runs.

        `planned` and `applied` answer the last offset of each partition whose plan is fixed, and
        whose plan is in the store. A meter without its series, or a series without a meter, is
        what a crash between the two left behind.
        """
        self._planned, self._applied = planned, applied
        async with self._database.read() as conn:
            stored = await state.load_series(conn)
        for one in stored:
            if one.series.key in self._by_key:
                # Its making was cut short, and another one was made.
                self._dropped.append(self._by_key[one.series.key].series.id)
            self._by_key[one.series.key] = await self._recovered(one)
            self._ids.add(one.series.id)
        for meter in meters:
            await self.ensure(meter)
        async with self.exclusive:
            for key in [key for key in self._by_key if key not in self._users]:
                await self._drop(key)

    async def _recovered(self, one: StoredSeries) -> StoredSeries:
        """A series whose step was cut short starts that step again."""
        if one.in_progress:
            await self._backfill.undo(one.series)
            return await self._save(replace(one, in_progress=False))
        return one

    def live(self) -> list[Series]:
        """Every series, in the order of ids."""
        return sorted((one.series for one in self._by_key.values()), key=lambda one: one.id)

    def has(self, series_id: int) -> bool:
        """Whether a series is live."""
        return series_id in self._ids

    def get(self, meter: Meter) -> Series:
        """The series that a meter's queries read.

        `UnavailableError` while it is too young to be queried.
        """
        found = self._by_key.get(series_key(meter))
        if found is None:
            raise NotFoundError(f"meter {meter.slug} has no series")
        if found.series.state == "preparing":
            raise UnavailableError(
                f"meter {meter.slug} is being prepared; try again soon", retry_after_seconds=2
            )
        return found.series

    def progress(self, meter: Meter) -> tuple[str, float]:
        """State and progress (0 to 1) of the back-fill that a meter waits for."""
        found = self._by_key.get(series_key(meter))
        return ("preparing", 0.0) if found is None else (found.series.state, found.series.progress)

    async def ensure(self, meter: Meter) -> Series:
        """The series of a meter, made if it is not there. It counts stored events as well."""
        key = series_key(meter)
        async with self.exclusive:
            if key not in self._by_key:
                await self._create(key)
            self._users.setdefault(key, set()).add(meter.id)
            return self._by_key[key].series

    async def release(self, meter: Meter) -> None:
        """The meter is gone or has moved to another series: drop the series if nobody uses it."""
        key = series_key(meter)
        async with self.exclusive:
            users = self._users.get(key, set())
            users.discard(meter.id)
            if not users and key in self._by_key:
                await self._drop(key)

    async def _create(self, key: SeriesKey) -> None:
        live_from = {part: through + 1 for part, through in self._planned().items() if through}
        draft = Series(0, key, "preparing" if live_from else "ready", live_from, {})
        step = await self._backfill.step_offsets(draft)
        async with self._database.transaction() as conn:
            series = await state.create_series(conn, key, draft.state, live_from, step)
        one = self._by_key[key] = StoredSeries(series, step, False)
        self._ids.add(series.id)
        self.wake()
        if series.state == "ready" or not positions_reached(series, self._applied()):
            return
        # Seldom more than a few; then the meter can be queried at once.
        if await self._backfill.count_exact(series) <= _PREPARE_AT_ONCE:
            self._by_key[key] = await self._prepare(one)

    async def _drop(self, key: SeriesKey) -> None:
        one = self._by_key.pop(key)
        self._ids.discard(one.series.id)
        self._users.pop(key, None)
        self._dropped.append(one.series.id)
        self.wake()

    async def run(self, stopping: asyncio.Event) -> None:
        """Back-fill new series and delete dropped ones, until `stopping` is set."""
        while not stopping.is_set():
            self._work.clear()
            try:
                again = await self._one_step()
            except Exception:
                log.exception("a back-fill failed and will be tried again")
                again = False
            if not again:
                if not self._work.is_set():
                    self._idle.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._work.wait(), _RETRY_SECONDS)

    async def settled(self) -> None:
        """Wait until nothing is left to back-fill or to delete."""
        await self._idle.wait()

    def wake(self) -> None:
        """Look for work, or for the stop, now."""
        self._idle.clear()
        self._work.set()

    async def _one_step(self) -> bool:
        """Do one piece of work; whether there was any."""
        if self._dropped:
            await self._delete_dropped()
            return True
        for one in sorted(self._by_key.values(), key=lambda one: one.series.id):
            if one.series.state == "ready" or not positions_reached(one.series, self._applied()):
                continue
            if one.in_progress:
                async with self.exclusive:
                    one = self._replace(await self._recovered(one))
            moved = await (
                self._prepare(one) if one.series.state == "preparing" else self._fill(one)
            )
            self._replace(moved)
            return True
        return False

    async def _delete_dropped(self) -> None:
        ids = list(self._dropped)
        async with self.exclusive:
            await self._backfill.drop(ids)
            async with self._database.transaction() as conn:
                await state.delete_series(conn, ids)
        self._dropped = [one for one in self._dropped if one not in ids]

    async def _prepare(self, one: StoredSeries) -> StoredSeries:
        one = self._replace(await self._save(replace(one, in_progress=True)))
        await self._backfill.insert_exact(one.series)
        return await self._save(
            replace(one, in_progress=False, series=replace(one.series, state="backfilling"))
        )

    async def _fill(self, one: StoredSeries) -> StoredSeries:
        series = one.series
        if not series.gaps:
            return await self._save(replace(one, series=replace(series, state="ready")))
        part, after, before = series.gaps[0]
        through = min(after + one.step, before - 1)
        one = self._replace(await self._save(replace(one, in_progress=True)))
        await self._backfill.insert_step(series, part, after, through)
        done = {**series.done_through, part: through}
        return await self._save(
            replace(one, in_progress=False, series=replace(series, done_through=done))
        )

    async def _save(self, one: StoredSeries) -> StoredSeries:
        async with self._database.transaction() as conn:
            await state.save_series(conn, one.series, in_progress=one.in_progress)
        return one

    def _replace(self, one: StoredSeries) -> StoredSeries:
        # It may have been dropped meanwhile.
        if one.series.key in self._by_key:
            self._by_key[one.series.key] = one
        return one
