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
_ASK_SECONDS = 0.25
"""How long `as_of` waits for the log to say where it ends."""
_LOOK_SECONDS = (0.01, 0.25)
UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)
"""The instant until which all is surely there when nothing is known."""
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
        self._ends: asyncio.Task[Mapping[int, int]] | None = None

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
        """Every event that was acknowledged before this instant is in the store.

        While the log does not say where it ends, all partitions count as behind.
        """
        if self._local is not None and self._local.has_all():
            return await self._local.reached_until()
        async with self._asking:
            now = self._clock()
            if self._known is None or not timedelta(0) <= now - self._known[0] < _KEEP:
                self._known = (now, await self._look(now))
            return self._known[1]

    async def _look(self, now: datetime) -> datetime:
        ends = await self._soon()
        places = await self._places()
        if ends is None:
            parts = self._caught_up.keys() | places.keys()
            return min([self._behind(part, places) for part in parts], default=UNKNOWN)
        return min([self._until(part, end, places, now) for part, end in ends.items()], default=now)

    async def _soon(self) -> Mapping[int, int] | None:
        """The ends, None when the log cannot tell, or not soon; then it is not asked again before
        it has answered. A question that is broken off could leave a connection behind."""
        if self._ends is None:
            self._ends = asyncio.ensure_future(self._log.ends())
        await asyncio.wait([self._ends], timeout=_ASK_SECONDS)
        if not self._ends.done():
            return None
        asked, self._ends = self._ends, None
        return None if asked.exception() is not None else asked.result()

    def _until(
        self, part: int, end: int, places: Mapping[int, Position], now: datetime
    ) -> datetime:
        if end <= places.get(part, _NOWHERE).position:
            self._caught_up[part] = now
            return now
        return min(now, self._behind(part, places))

    def _behind(self, part: int, places: Mapping[int, Position]) -> datetime:
        # What came after the last applied event is not there, and maybe nothing else is missing.
        through = places.get(part, _NOWHERE).through_at or UNKNOWN
        return max(through, self._caught_up.get(part, UNKNOWN))

    async def _places(self) -> Mapping[int, Position]:
        async with self._database.read() as conn:
            return await state.load_places(conn)
