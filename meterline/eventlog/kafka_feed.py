"""Reading one partition ahead of the sink."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice

import structlog

from meterline.eventlog.kafka import EARLIEST, LATEST, KafkaClient, OutOfRangeError
from meterline.eventlog.kafka_assemble import Assembler, instant
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_rows import Fetched, Row
from meterline.eventlog.port import LogGapError, Record
from meterline.kernel.errors import UnavailableError

log = structlog.get_logger(__name__)

Forward = Callable[[Sequence[tuple[int, Row]]], Awaitable[None]]
"""Writes rows to the partitions that are named with them; they are there when it returns."""

_SLICE = 1_000
"""Rows that are read without a pause, and most events in one record of the log."""
_BYTES_A_PLACE = 80
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0
_SHORT_WAIT_SECONDS = 0.05


class Feed:
    """Fetches a partition from a position on, a bounded way ahead of who reads it.

    Positions are the log's: one more than Kafka's offset, so that the next of Kafka's to fetch
    has the number of the position.
    """

    def __init__(
        self,
        client: KafkaClient,
        assembler: Assembler,
        partition: int,
        options: KafkaOptions,
        forward: Forward,
        room: Callable[[], int],
    ) -> None:
        """`room` tells how many bytes of events this feed may hold ready by now."""
        self._client = client
        self._assembler = assembler
        self._partition = partition
        self._options = options
        self._forward = forward
        self._room = room
        self._task: asyncio.Task[None] | None = None
        self._turn = 0
        self._after = 0
        self._changed = asyncio.Condition()
        self._begin(0)
        self._latest = datetime(1970, 1, 1, tzinfo=UTC)

    async def read(self, after: int, max_events: int) -> list[Record]:
        """See `LogReader.read`."""
        await self._follow(after)
        if not self._ready:
            await self._wait_for_all(after)
        found: list[Record] = []
        events = 0
        while self._ready:
            events += self._ready[0].count
            if found and events > max_events:
                break
            found.append(self._ready.popleft())
        if found:
            self._after = found[-1].offset
            self._events -= sum(record.count for record in found)
            self._bytes -= sum(map(_size, found))
            await self._notify()
        return found

    async def wait(self, after: int, timeout_seconds: float) -> bool:
        """See `LogReader.wait`. Raises what stands in the way instead of waiting in vain."""
        await self._follow(after)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds), self._changed:
                await self._changed.wait_for(lambda: self._ready or self._error)
        self._raise_error()
        return bool(self._ready)

    async def stop(self) -> None:
        """Fetch no more, and forget what was fetched."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            self._client.leave(self._lane)
        self._begin(self._after)

    def _begin(self, after: int) -> None:
        self._after = after
        self._covered = after
        self._fetched = False
        self._ready: deque[Record] = deque()
        self._events = 0
        self._bytes = 0
        self._error: UnavailableError | None = None

    @property
    def _lane(self) -> str:
        # A connection of its own for each run: the broker may still hold the last one's fetch.
        return f"fetch-{self._partition}-{self._turn}"

    async def _follow(self, after: int) -> None:
        """Be on the way from `after` on."""
        if self._task is not None and self._after == after:
            return
        await self.stop()
        self._begin(after)
        self._turn += 1
        self._task = asyncio.create_task(self._run(after), name=self._lane)

    async def _wait_for_all(self, after: int) -> None:
        """Wait until something is ready, or all that the log has by now was looked at."""
        end = (await self._client.offsets([self._partition], LATEST))[self._partition]
        # An end before the position is for the broker to judge: it may only be a new leader, which
        # does not know yet how far its followers are.
        try:
            async with asyncio.timeout(2 * self._options.request_timeout_seconds), self._changed:
                await self._changed.wait_for(
                    lambda: (
                        self._ready
                        or self._error
                        or (self._covered >= end and (self._fetched or end >= after))
                    )
                )
        except TimeoutError:
            raise UnavailableError("Kafka cannot be read: no answer in time") from None
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None and not self._ready:
            raise type(self._error)(self._error.detail)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _run(self, position: int) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                await self._wait_for_room()
                fetched = await self._client.fetch(self._partition, position, self._lane)
                self._fetched = True
                self._error = None
                await self._take(fetched)
                position = fetched.after
                pause = _FIRST_PAUSE_SECONDS
                continue
            except OutOfRangeError:
                try:
                    position = await self._out_of_range(position)
                    continue
                except UnavailableError as error:
                    self._error = error
            except UnavailableError as error:
                self._error = error
            except Exception as error:
                log.exception("records cannot be read", partition=self._partition)
                self._error = UnavailableError(f"records cannot be read: {error}"[:500])
            # What was pushed of a fetch that failed half-way is there; the rest comes again.
            position = max(position, self._covered)
            await self._notify()
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    async def _take(self, fetched: Fetched) -> None:
        """Make records of what was fetched, slice by slice."""
        while rows := _next_slice(fetched.rows):
            assembled = self._assembler.assemble(rows)
            if assembled.strays:
                await self._forward(assembled.strays)
            self._latest = instant(rows[-1].timestamp or 0)
            self._push(assembled.records, rows[-1].offset + 1)
            await self._notify()
            await self._wait_for_room()
        if fetched.after > self._covered:
            self._push((), fetched.after)
        await self._notify()

    def _push(self, records: Sequence[Record], covered: int) -> None:
        self._ready.extend(records)
        last = records[-1].offset if records else self._covered
        self._covered = covered
        self._events += sum(record.count for record in records)
        self._bytes += sum(map(_size, records))
        if last < covered:
            # Nothing to read there; but the position must get past it.
            default = self._options.default_namespace
            self._ready.append(Record(self._partition, covered, default, self._latest, 0, b"[]"))

    async def _wait_for_room(self) -> None:
        most = self._options.prefetch_events
        async with self._changed:
            await self._changed.wait_for(
                lambda: not self._ready or (self._events < most and self._bytes < self._room())
            )

    async def _out_of_range(self, position: int) -> int:
        """Where to go on; raises `LogGapError` when that would leave out events."""
        first = (await self._client.offsets([self._partition], EARLIEST))[self._partition]
        end = (await self._client.offsets([self._partition], LATEST))[self._partition]
        if position > end:
            raise self._ahead(position, end)
        if position == 0:
            log.warning(
                "the oldest records were deleted before anybody read the partition",
                partition=self._partition,
                first=first,
            )
            self._push((), first)
            return first
        raise LogGapError(
            f"partition {self._partition} of {self._options.topic}: the records from position"
            f" {position} to {first} were deleted before they were read"
        )

    def _ahead(self, position: int, end: int) -> LogGapError:
        return LogGapError(
            f"partition {self._partition} of {self._options.topic} ends at {end}, and events up to"
            f" {position} were read: the topic was made anew, or is an older copy"
        )


def _size(record: Record) -> int:
    """About what a record takes in memory."""
    return len(record.events) + _BYTES_A_PLACE * record.count


def _next_slice(rows: Iterator[Row]) -> list[Row]:
    return list(islice(rows, _SLICE))
