"""How far the worker of a partition is, for whoever waits for it or watches it."""

import asyncio
from contextlib import suppress
from datetime import datetime

from aggregator.parts import PartitionStatus, SinkOptions
from meterline.eventlog.port import LogReader
from meterline.kernel.clock import Clock


class Progress:
    """The position in one partition, and since when there was none."""

    def __init__(self, part: int, log: LogReader, clock: Clock, options: SinkOptions) -> None:
        self._part = part
        self._log = log
        self._clock = clock
        self._options = options
        self._moved = asyncio.Condition()
        self._oldest: datetime | None = None
        self.at = clock()
        """When it last moved, or had nothing to do."""
        self.position = 0
        """The last offset that is fully applied."""
        self.last_error: str | None = None

    def begins(self, oldest: datetime) -> None:
        """A plan is begun, and its first event was accepted then."""
        self._oldest = oldest

    def rests(self) -> None:
        """There is nothing to do."""
        self._oldest = None
        self.at = self._clock()

    async def move(self, position: int) -> None:
        """All up to this offset is applied."""
        self.position = position
        async with self._moved:
            self._moved.notify_all()

    async def wait_visible(self, offset: int, timeout_seconds: float) -> bool:
        """Wait until everything up to `offset` is in the store. False when the time ran out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds), self._moved:
                await self._moved.wait_for(lambda: self.position >= offset)
        return self.position >= offset

    async def visible_until(self) -> datetime:
        """Every event that was acknowledged before this instant is in the store."""
        now = self._clock()
        if await self._log.end(self._part) <= self.position:
            return now
        return min(self._oldest or self.at, now)

    async def status(self) -> PartitionStatus:
        """Where this partition's sink is."""
        end = await self._log.end(self._part)
        now = self._clock()
        behind = end > self.position
        lag = (now - self._oldest).total_seconds() if behind and self._oldest else 0.0
        idle = (now - self.at).total_seconds()
        return PartitionStatus(
            self._part,
            self.position,
            end,
            lag,
            behind and idle > self._options.stalled_after_seconds,
            self.last_error,
        )
