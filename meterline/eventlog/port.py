"""The port of the event log: what an offset means, and when an event is durable.

A log has one or more partitions. Within a partition each record has an `offset`: a positive
integer that grows with every append and is never reused, not even after a crash or a trim.
A reader's position is the offset of the last record that it has fully handled; `read` returns
records with greater offsets, in ascending order. `append` returns only after the record would
survive a power cut. A record is one accepted batch of events, already validated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted batch.

    `events` is a compact UTF-8 JSON array of canonical event objects (see `ingest.parse`);
    `count` is its length.
    """

    partition: int
    offset: int
    namespace: str
    ingested_at: datetime
    count: int
    events: bytes


class EventLog(Protocol):
    """A durable, ordered log of accepted batches."""

    async def append(self, namespace: str, ingested_at: datetime, count: int, events: bytes) -> int:
        """Append one batch; returns its offset once it is durable.

        Raises `UnavailableError` when the log cannot take it now (disk full, closed, queue full):
        then nothing was stored, or it was stored and the caller's retry is deduplicated.
        """
        ...

    def partitions(self) -> Sequence[int]:
        """The partitions this process reads."""
        ...

    async def read(self, partition: int, after: int, max_events: int) -> Sequence[Record]:
        """Records after offset `after`: at least one if there is any, then as many more as keep
        the total of events within `max_events`."""
        ...

    async def wait(self, partition: int, after: int, timeout_seconds: float) -> bool:
        """Wait until a record after offset `after` exists. False when the time ran out."""
        ...

    async def end(self, partition: int) -> int:
        """The last offset given out in the partition, 0 if none."""
        ...

    async def count(self, partition: int, after: int) -> int:
        """How many events the records after offset `after` hold, for people and metrics.

        A few too many when `after` lies within what was made durable at once.
        """
        ...

    async def trim(self, partition: int, through: int) -> None:
        """Forget records up to and including offset `through`."""
        ...

    async def skip(self, partition: int, through: int) -> None:
        """Give out only offsets above `through` from now on, and forget those up to it.

        For a reader that is ahead of the log: the log was lost, or is an older copy.
        """
        ...

    async def close(self) -> None:
        """Make everything accepted durable and release the log."""
        ...
