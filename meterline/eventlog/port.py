"""The port of the event log: what an offset means, and when an event is durable.

A log has a fixed number of partitions, numbered from 0. Within a partition offsets are positive
integers that grow and are never reused, not even after a crash or a trim. A reader's position is
an offset too: everything up to it is fully handled; `read` returns what is after it, in order.
`append` returns only after the events would survive a power cut.

Two kinds of logs are behind it. The embedded log keeps batches: a batch has one offset, and all
its events share it. In a log of single events (Kafka) each event has an offset of its own, and a
record says with `places` where each of its events is.

An event always comes out of its *home* partition, whoever wrote it, so that its key (namespace,
source, id) can be told apart within one partition.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from meterline.kernel.errors import UnavailableError

Changed = Callable[[frozenset[int]], Awaitable[None]]
"""Told which partitions a reader has from now on."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where each event of a record is, in logs that give every event an offset of its own."""

    offsets: Sequence[int]
    """Ascending, not always without gaps."""
    ingested_at_ms: Sequence[int]
    """Milliseconds since 1970, one an event."""


@dataclass(frozen=True, slots=True)
class Record:
    """Some consecutive events of one namespace.

    `events` is a compact UTF-8 JSON array of `count` canonical event objects (see `ingest.parse`).
    `offset` is that of the last of them; `ingested_at` that of the first. A record without events
    and without `fault` only moves the position: the log has something there that is no event, or
    not one for this reader. Where records begin and end may differ from read to read (see
    `records.clip`).
    """

    partition: int
    offset: int
    namespace: str
    ingested_at: datetime
    count: int
    events: bytes
    places: Places | None = None
    """None: all events share `offset`, and are told apart by their index."""
    fault: str | None = None
    """Why it cannot be read; then `events` are the raw bytes, `count` is 0, and it belongs among
    the dead letters."""

    @property
    def first_offset(self) -> int:
        """The offset of the first event."""
        return self.offset if self.places is None else self.places.offsets[0]


class LogGapError(UnavailableError):
    """The log does not hold what comes after a position, and never will.

    Records were deleted before they were read, or the log was made anew. People must decide;
    nothing is skipped without them.
    """


class LogWriter(Protocol):
    """Takes accepted batches."""

    async def append(
        self, namespace: str, ingested_at: datetime, count: int, events: bytes
    ) -> int | None:
        """Make a batch durable; it is when this returns.

        `events` is as in `Record`. A log that keeps batches answers the offset, others None.
        Raises `UnavailableError` when the log cannot take it now (disk full, broker away, closed,
        queue full): then nothing was stored, or some of it was and the caller's retry is
        deduplicated.
        """
        ...

    async def close(self) -> None:
        """Make everything accepted durable and release the log. May be called again."""
        ...


class LogReader(Protocol):
    """Gives events in order, partition by partition.

    `read`, `wait`, `count`, `trim`, `skip` and `dead_letter` are for partitions that `subscribe`
    named. All raise `UnavailableError` when the log cannot be reached.
    """

    async def subscribe(self, changed: Changed) -> None:
        """Begin to read.

        `changed` is awaited with the partitions that this process reads from now on, at once and
        whenever that changes. A partition that it no longer names is given to another reader only
        after it has returned, within a limit of time.
        """
        ...

    def partition_count(self) -> int:
        """How many partitions the log has, whoever reads them."""
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

    async def ends(self) -> Mapping[int, int]:
        """The last offset of every partition, whoever reads it."""
        ...

    async def count(self, partition: int, after: int) -> int:
        """How many events the records after offset `after` hold, for people and metrics.

        A few too many when `after` lies within what was made durable at once, or when the log
        holds what is no event.
        """
        ...

    async def trim(self, partition: int, through: int) -> None:
        """Nothing up to and including offset `through` is needed any more."""
        ...

    async def skip(self, partition: int, through: int) -> None:
        """Give out only offsets above `through` from now on, and forget those up to it.

        For a reader that is ahead of the log: the log was lost, or is an older copy. A log that
        cannot give out such offsets raises `LogGapError`; there it only means that a gap up to
        `through` is accepted.
        """
        ...

    async def dead_letter(self, record: Record, reason: str) -> None:
        """Put a record that cannot be used where people find it; durable when it returns.

        The embedded log has no such place: the list in the database is all there is.
        """
        ...

    async def close(self) -> None:
        """Stop reading and release the log. May be called again."""
        ...


class EventLog(LogWriter, LogReader, Protocol):
    """Both ends of one log."""
