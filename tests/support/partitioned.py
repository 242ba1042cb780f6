"""A log of several partitions in memory, as Kafka's is: an offset for every event, many readers.

Which reader has which partition is the test's to say. Where a record begins and ends changes with
every read, by a seeded chance.
"""

import asyncio
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

from aggregator.cutting import moment
from meterline.eventlog.port import Changed, Places, Record
from tests.support.usage import INGESTED, encode

_AT = round(INGESTED.timestamp() * 1000)


@dataclass(frozen=True)
class Entry:
    """One event, or raw bytes that are none."""

    offset: int
    namespace: str
    event: bytes
    fault: str | None = None


class PartitionedLog:
    """The broker."""

    def __init__(self, partitions: int, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.entries: list[list[Entry]] = [[] for _ in range(partitions)]
        self.appended = asyncio.Condition()
        self.readers: list[Reader] = []
        self.dead: list[tuple[int, str]] = []

    def home(self, namespace: str, event: Mapping[str, Any]) -> int:
        key = json.dumps([namespace, event["source"], event["id"]], separators=(",", ":"))
        return crc32(key.encode()) % len(self.entries)

    async def send(self, events: Iterable[dict[str, Any]], *, namespace: str = "default") -> None:
        """Append events, each to its home."""
        for event in events:
            await self._append(self.home(namespace, event), namespace, encode([event])[1:-1], None)
        async with self.appended:
            self.appended.notify_all()

    async def send_raw(self, part: int, raw: bytes, fault: str | None = None) -> int:
        """Append bytes to a partition; answers the offset."""
        await self._append(part, "default", raw, fault)
        async with self.appended:
            self.appended.notify_all()
        return self.entries[part][-1].offset

    async def _append(self, part: int, namespace: str, raw: bytes, fault: str | None) -> None:
        held = self.entries[part]
        # Gaps are where a broker keeps marks of its own.
        step = self.chance.choice([1, 1, 1, 2])
        offset = (held[-1].offset if held else 0) + step
        held.append(Entry(offset, namespace, raw, fault))

    def reader(self) -> "Reader":
        """One more process."""
        made = Reader(self)
        self.readers.append(made)
        return made

    async def assign(self, *parts: Iterable[int]) -> None:
        """Say what each reader has: those that lose something are told first."""
        new = [frozenset(one) for one in parts]
        pairs = list(zip(self.readers, new, strict=True))
        for reader, wanted in pairs:
            if kept := reader.parts - wanted:
                await reader.tell(reader.parts - kept)
        for reader, wanted in pairs:
            await reader.tell(wanted)


@dataclass
class Reader:
    """The log as one process reads it."""

    log: PartitionedLog
    parts: frozenset[int] = frozenset()
    changed: Changed | None = field(default=None, repr=False)

    async def tell(self, parts: frozenset[int]) -> None:
        self.parts = parts
        if self.changed is not None:
            await self.changed(parts)

    async def subscribe(self, changed: Changed) -> None:
        self.changed = changed
        await changed(self.parts)

    def partition_count(self) -> int:
        return len(self.log.entries)

    async def read(self, partition: int, after: int, max_events: int) -> Sequence[Record]:
        await asyncio.sleep(0)
        waiting = [one for one in self.log.entries[partition] if one.offset > after][:max_events]
        records: list[Record] = []
        while waiting:
            size = self.log.chance.randint(1, len(waiting))
            first = waiting[0]
            group: list[Entry] = []
            while waiting and len(group) < size and waiting[0].namespace == first.namespace:
                if waiting[0].fault is not None and group:
                    break
                group.append(waiting.pop(0))
                if group[-1].fault is not None:
                    break
            records.append(_record(partition, group))
        return records

    async def wait(self, partition: int, after: int, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds), self.log.appended:
                await self.log.appended.wait_for(lambda: self._end(partition) > after)
        except TimeoutError:
            return False
        return True

    async def end(self, partition: int) -> int:
        return self._end(partition)

    def _end(self, partition: int) -> int:
        held = self.log.entries[partition]
        return held[-1].offset if held else 0

    async def ends(self) -> Mapping[int, int]:
        return {part: self._end(part) for part in range(len(self.log.entries))}

    async def count(self, partition: int, after: int) -> int:
        return sum(one.offset > after for one in self.log.entries[partition])

    async def trim(self, partition: int, through: int) -> None:
        pass

    async def skip(self, partition: int, through: int) -> None:
        raise AssertionError("this log is never behind")

    async def dead_letter(self, record: Record, reason: str) -> None:
        self.log.dead.append((record.offset, reason))

    async def close(self) -> None:
        pass


def _record(partition: int, group: Sequence[Entry]) -> Record:
    last = group[-1]
    if last.fault is not None:
        return Record(
            partition, last.offset, last.namespace, INGESTED, 0, last.event, None, last.fault
        )
    offsets = [one.offset for one in group]
    times = [_AT + offset for offset in offsets]
    events = b"[" + b",".join(one.event for one in group) + b"]"
    return Record(
        partition, last.offset, last.namespace, moment(times[0]), len(group), events,
        Places(offsets, times),
    )  # fmt: skip
