"""Which series there are. The database knows; this is a copy of it, for any process.

Where several processes share a database, the copy is compared with `series_version` before each
use that matters, so that an old copy never answers: a series that was dropped gets no new points,
and later loses those that it has. How far a series is back-filled may be old: what is filled by
now is then read from the events, as it was before (`sql._with_gaps`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress

import structlog

from aggregator.backfill import Backfill, positions_reached, step_offsets
from aggregator.series import Series, SeriesKey, State, series_key
from aggregator.stores import series as stored
from aggregator.stores import state
from aggregator.stores.engine import Engine
from aggregator.stores.series import StoredSeries
from meterline.db.engine import Database
from meterline.db.locks import Gate
from meterline.kernel.clock import Clock
from meterline.kernel.errors import UnavailableError
from meterline.kernel.meters import Meter

log = structlog.get_logger(__name__)

_WATCH_SECONDS = 1.0
_PREPARE_SECONDS = 10.0
_LOOK_SECONDS = 0.02


class SeriesRegistry:
    """The live series, kept in step with the meters."""

    def __init__(
        self, database: Database, engine: Engine, clock: Clock, *, gate: Gate | None = None
    ) -> None:
        """Give a `gate` when several registries of this process share an SQLite database."""
        self.gate = gate or Gate(database)
        self.backfill = Backfill(engine)
        self.hasten: Callable[[StoredSeries], Awaitable[None]] | None = None
        """Prepares a new series at once, in the process that leads."""
        self.changed: Callable[[], None] | None = None
        """There may be something to back-fill or to delete."""
        self._database = database
        self._clock = clock
        self._alone = gate is None and database.dialect == "sqlite"
        self._making = asyncio.Lock()
        self._by_id: dict[int, StoredSeries] = {}
        self._by_key: dict[SeriesKey, StoredSeries] = {}
        self._users: set[tuple[int, str]] = set()
        self._named: dict[int, Series] = {}
        self._version = -1

    async def start(self, meters: Iterable[Meter]) -> None:
        """Load the series, and make those that are missing.

        A meter without its series is what a crash between the two left behind. A series without
        a meter may just be made by another process; the one that leads looks after those.
        """
        await self.refresh()
        for meter in meters:
            await self.ensure(meter)

    async def refresh(self) -> None:
        """Make the copy agree with the database."""
        if self._alone and self._version >= 0:
            return
        async with self._database.read() as conn:
            if await stored.version(conn) == self._version:
                return
        await self.reload()

    async def reload(self) -> None:
        """Read the series anew."""
        async with self._database.read() as conn:
            version = await stored.version(conn)
            found = await stored.load_series(conn)
            users = await stored.load_users(conn)
        if version < self._version:
            # Another task read a newer state meanwhile.
            return
        self._by_id = {one.series.id: one for one in found}
        self._by_key = {one.series.key: one for one in found}
        self._users = users
        self._version = version

    async def watch(self, stopping: asyncio.Event) -> None:
        """Keep the copy fresh for those who do not wait: `has` and `progress`."""
        while not self._alone and not stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _WATCH_SECONDS)
            try:
                await self.refresh()
            except UnavailableError as error:
                log.warning("cannot look for new series", error=error.detail)

    def live(self) -> list[Series]:
        """Every series, in the order of ids."""
        return [one.series for _, one in sorted(self._by_id.items())]

    def unfinished(self) -> list[StoredSeries]:
        """The series that are to be back-filled, oldest first."""
        return [one for _, one in sorted(self._by_id.items()) if one.series.state != "ready"]

    def has(self, series_id: int) -> bool:
        """Whether a series is live, by what is known here."""
        return series_id in self._by_id

    async def named(self, ids: Sequence[int]) -> list[Series]:
        """The series with these ids, dropped or not; what they are about never changes."""
        if unknown := [one for one in ids if one not in self._named]:
            async with self._database.read() as conn:
                found = await stored.load_series(conn, unknown)
            if len(self._named) > 100_000:
                self._named.clear()
            self._named.update((one.series.id, one.series) for one in found)
        return [self._named[one] for one in ids if one in self._named]

    async def get(self, meter: Meter) -> Series:
        """The series that a meter's queries read.

        `UnavailableError` while it is too young to be queried.
        """
        await self.refresh()
        found = self._by_key.get(series_key(meter))
        # A meter was changed by two processes at once, and one dropped what the other needs.
        series = await self.ensure(meter) if found is None else found.series
        if series.state == "preparing":
            raise UnavailableError(
                f"meter {meter.slug} is being prepared; try again soon", retry_after_seconds=2
            )
        return series

    async def readable(self, meters: Iterable[Meter]) -> list[Series]:
        """The series of meters, as far as they can be queried by now."""
        await self.refresh()
        found = (self._by_key.get(series_key(meter)) for meter in meters)
        return [one.series for one in found if one and one.series.state != "preparing"]

    def progress(self, meter: Meter) -> tuple[str, float]:
        """State and progress (0 to 1) of the back-fill that a meter waits for."""
        found = self._by_key.get(series_key(meter))
        return ("preparing", 0.0) if found is None else (found.series.state, found.series.progress)

    async def ensure(self, meter: Meter) -> Series:
        """The series of a meter, made if it is not there. It counts stored events as well."""
        key = series_key(meter)
        await self.refresh()
        async with self._making:
            found = self._by_key.get(key)
            if found is not None and (found.series.id, meter.id) in self._users:
                return found.series
            # Only about how long steps take; so it may be old when the series is made.
            events = 0 if found else await self.backfill.count(key)
            async with self.gate.exclusive() as conn:
                # Plans name the series that are live when they are made, and they are made
                # beside no such transaction. So each has this series if it is of offsets after
                # `live_from`, and none has it if it is of offsets before.
                one = await stored.find_series(conn, key)
                made = one is None
                if one is None:
                    planned = await state.planned_through(conn)
                    live_from = {part: through + 1 for part, through in planned.items() if through}
                    step = step_offsets(events, live_from)
                    begun: State = "preparing" if live_from else "ready"
                    series = await stored.create_series(conn, key, begun, live_from, step)
                    one = StoredSeries(series, step, False)
                await stored.add_user(conn, one.series.id, meter.id, self._clock())
            await self.reload()
            if made and one.series.state == "preparing":
                await self._prepare(one)
        self._tell()
        return self._by_id.get(one.series.id, one).series

    async def _prepare(self, one: StoredSeries) -> None:
        """Seldom is there much to prepare; then the meter can be queried at once."""
        if not await self._planned_is_applied(one.series):
            return
        if not await self.backfill.count_exact(one.series):
            async with self._database.transaction() as conn:
                await stored.need_no_preparation(conn, one.series.id)
            await self.reload()
        elif self.hasten is not None:
            await self.hasten(one)

    async def _planned_is_applied(self, series: Series) -> bool:
        """Wait a moment for the plans that are under way."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_PREPARE_SECONDS):
                while True:
                    async with self._database.read() as conn:
                        if positions_reached(series, await state.load_positions(conn)):
                            return True
                    await asyncio.sleep(_LOOK_SECONDS)
        return False

    async def release(self, meter: Meter) -> None:
        """The meter is gone or has moved to another series: drop the series if nobody uses it."""
        await self.refresh()
        found = self._by_key.get(series_key(meter))
        if found is None:
            return
        async with self.gate.exclusive() as conn:
            await stored.remove_user(conn, found.series.id, meter.id, self._clock())
        await self.reload()
        self._tell()

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed()
