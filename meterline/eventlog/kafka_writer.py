"""The writing end of the log on Kafka."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from meterline.eventlog.kafka_codec import CONTENT_TYPE, NAMESPACE, STRUCTURED, Codec
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_rows import Run
from meterline.eventlog.kafka_sending import Sending
from meterline.kernel.errors import UnavailableError
from meterline.kernel.grouping import Grouping

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_INLINE_BYTES = 512 * 1024
"""Larger batches are taken apart in a thread, so that other requests need not wait for them."""
_MANY = 1 << 30


class KafkaWriter:
    """A `LogWriter`: one event a record, each in its home partition.

    Appends that wait for the same partition go out together, in one batch.
    """

    def __init__(self, options: KafkaOptions, codec: Codec) -> None:
        self.buffered_bytes = 0
        """Bytes of events that were not acknowledged yet."""
        self._options = options
        self._codec = codec
        self._sending = Sending(options)
        self._groups = [self._grouping(partition) for partition in range(options.partitions)]
        self._closed = False

    async def open(self) -> None:
        """Connect; the topic must be there (`open_topic`). Raises `UnavailableError`."""
        await self._sending.open()

    @property
    def rebuilds(self) -> int:
        """How often the producer was built anew after a failure."""
        return self._sending.rebuilds

    async def check(self) -> None:
        """Raises `UnavailableError` unless events can be written now."""
        await self._sending.check()

    async def append(
        self, namespace: str, ingested_at: datetime, count: int, events: bytes
    ) -> int | None:
        """See `LogWriter.append`. Keeps the milliseconds of `ingested_at`, none before 1970."""
        size = len(events)
        self._require_room(size)
        self.buffered_bytes += size
        try:
            shares = await self._shares(namespace, events)
            headers = [(CONTENT_TYPE, STRUCTURED), (NAMESPACE, namespace.encode())]
            timestamp = max(0, (ingested_at - _EPOCH) // _MILLISECOND)
            waiting = [
                self._groups[partition].submit(
                    Run(timestamp, headers, values), sum(map(len, values))
                )
                for partition, values in shares
            ]
            if len(waiting) == 1:
                await waiting[0]
            else:
                # All are seen to the end, so that no failure of one goes unread.
                for outcome in await asyncio.gather(*waiting, return_exceptions=True):
                    if isinstance(outcome, BaseException):
                        raise outcome
        finally:
            self.buffered_bytes -= size
        return None

    async def close(self) -> None:
        """See `LogWriter.close`."""
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*(group.close() for group in self._groups))
        await self._sending.close()

    def _require_room(self, size: int) -> None:
        if self._closed:
            raise UnavailableError("the event log is closed")
        self._sending.require()
        if self.buffered_bytes and self.buffered_bytes + size > self._options.max_waiting_bytes:
            raise UnavailableError("the event log cannot keep up; its queue is full")

    async def _shares(self, namespace: str, events: bytes) -> list[tuple[int, Sequence[bytes]]]:
        if len(events) <= _INLINE_BYTES:
            return self._split(namespace, events)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._split, namespace, events)

    def _split(self, namespace: str, events: bytes) -> list[tuple[int, Sequence[bytes]]]:
        """The values of a batch, by home partition."""
        values, hashes = self._codec.encode(namespace, events)
        partitions = self._options.partitions
        shares: list[list[bytes]] = [[] for _ in range(partitions)]
        for value, hashed in zip(values, hashes, strict=True):
            shares[hashed % partitions].append(value)
        return [(partition, share) for partition, share in enumerate(shares) if share]

    def _grouping(self, partition: int) -> Grouping[Run, None]:
        async def commit(runs: Sequence[Run]) -> Sequence[None]:
            await self._sending.send(self._options.topic, partition, runs)
            return [None] * len(runs)

        return Grouping(
            commit,
            name=f"the event log's partition {partition}",
            max_items=_MANY,
            max_group_items=_MANY,
            max_group_cost=self._options.max_batch_bytes,
        )
