"""Up to when accepted events are in the store, seen from any process.

The log says where each partition ends, the database how far each is applied. Both are asked only
when somebody wants to know, and at most every quarter of a second for those who only want `as_of`.
A process whose own sink has all partitions knows by itself.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol

from aggregator.stores import state
from aggregator.stores.state import Position
from meterline.db.engine import Database
from meterline.kernel.clock import Clock

_KEEP = timedelta(milliseconds=250)
_LOOK_SECONDS = (0.01, 0.25)
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_NOWHERE = Position(0, None)


class Ends(Protocol):
    """The end of the log that says how much there is."""

    async def ends(self) -> Mapping[int, int]:
        """The last offset of every partition, whoever reads it."""
        ...


class LocalSink(Protocol):
    """The sink of this process."""

    def has_all(self) -> bool:
        """Whether it applies every partition itself."""
        ...

    async def reached(self, timeout_seconds: float) -> bool:
        """Wait until what the log has accepted by now is in the store."""
        ...

    async def reached_until(self) -> datetime:
        """Every event that was acknowledged before this instant is in the store."""
        ...


class Freshness:
    """How far the store is behind the log."""

    def __init__(
        self, database: Database, log: Ends, clock: Clock, local: LocalSink | None = None
    ) -> None:
        self._database = database
        self._log = log
        self._clock = clock
        self._local = local
        self._known: tuple[datetime, datetime] | None = None
        self._asking = asyncio.Lock()
        self._caught_up: dict[int, datetime] = {}

    async def wait_visible(self, timeout_seconds: float) -> bool:
        """Wait until everything that the log has accepted by now is in the store."""
        if self._local is not None and self._local.has_all():
            return await self._local.reached(timeout_seconds)
        reached = False
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                ends = await self._log.ends()
                pause, longest = _LOOK_SECONDS
                while not reached:
                    places = await self._places()
                    reached = all(
                        places.get(part, _NOWHERE).position >= end for part, end in ends.items()
                    )
                    if not reached:
                        await asyncio.sleep(pause)
                        pause = min(2 * pause, longest)
        return reached

    async def visible_until(self) -> datetime:
        """Every event that was acknowledged before this instant is in the store."""
        if self._local is not None and self._local.has_all():
            return await self._local.reached_until()
        async with self._asking:
            now = self._clock()
            if self._known is None or not timedelta(0) <= now - self._known[0] < _KEEP:
                self._known = (now, await self._look(now))
            return self._known[1]

    async def _look(self, now: datetime) -> datetime:
        ends = await self._log.ends()
        places = await self._places()
        return min([self._until(part, end, places, now) for part, end in ends.items()], default=now)

    def _until(
        self, part: int, end: int, places: Mapping[int, Position], now: datetime
    ) -> datetime:
        place = places.get(part, _NOWHERE)
        if end <= place.position:
            self._caught_up[part] = now
            return now
        # What came after the last applied event is not there, and maybe nothing else is missing.
        through = place.through_at or _NEVER
        return min(now, max(through, self._caught_up.get(part, _NEVER)))

    async def _places(self) -> Mapping[int, Position]:
        async with self._database.read() as conn:
            return await state.load_places(conn)
