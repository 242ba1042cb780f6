"""The log in memory: for tests and tools. Durable as long as the process lives."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime

from meterline.eventlog.port import Changed, Record
from meterline.kernel.errors import UnavailableError


class MemoryLog:
    """An `EventLog` of one partition in a list."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._end = 0
        self._closed = False
        self._appended = asyncio.Event()

    async def append(self, namespace: str, ingested_at: datetime, count: int, events: bytes) -> int:
        """See `LogWriter.append`."""
        if self._closed:
            raise UnavailableError("the event log is closed")
        self._end += 1
        self._records.append(Record(0, self._end, namespace, ingested_at, count, events))
        self._appended.set()
        self._appended = asyncio.Event()
        return self._end

    async def subscribe(self, changed: Changed) -> None:
        """See `LogReader.subscribe`."""
        await changed(frozenset({0}))

    def partition_count(self) -> int:
        """There is one partition, 0."""
        return 1

    async def read(self, partition: int, after: int, max_events: int) -> Sequence[Record]:
        """See `LogReader.read`."""
        found: list[Record] = []
        events = 0
        for record in self._records:
            if record.offset <= after:
                continue
            events += record.count
            if found and events > max_events:
                break
            found.append(record)
        return found

    async def wait(self, partition: int, after: int, timeout_seconds: float) -> bool:
        """See `LogReader.wait`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._end <= after:
                    await self._appended.wait()
        except TimeoutError:
            return False
        return True

    async def end(self, partition: int) -> int:
        """See `LogReader.end`."""
        return self._end

    async def ends(self) -> Mapping[int, int]:
        """See `LogReader.ends`."""
        return {0: self._end}

    async def count(self, partition: int, after: int) -> int:
        """See `LogReader.count`."""
        return sum(record.count for record in self._records if record.offset > after)

    async def trim(self, partition: int, through: int) -> None:
        """See `LogReader.trim`."""
        self._records = [record for record in self._records if record.offset > through]

    async def skip(self, partition: int, through: int) -> None:
        """See `LogReader.skip`."""
        await self.trim(partition, through)
        self._end = max(self._end, through)

    async def dead_letter(self, record: Record, reason: str) -> None:
        """The database's list is enough."""

    async def close(self) -> None:
        """Refuse further appends."""
        self._closed = True
