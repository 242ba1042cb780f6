"""A producer that is built anew after a failure, for writer and reader."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace

import structlog

from meterline.eventlog.kafka import KafkaProducer, TooLargeError
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_rows import Run
from meterline.kernel.errors import PayloadTooLargeError, UnavailableError

log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0
_CHECK_SECONDS = 2.0
_OVERHEAD = 512


class Sending:
    """Writes batches, and fails at once while the brokers are away.

    An idempotent producer of aiokafka retries for ever and can stay stuck after an outage, its
    sequence numbers torn. So whatever fails, fails the producer: it is given up, and a new one is
    tried until brokers answer. What the old one had under way may still have been written.
    """

    def __init__(self, options: KafkaOptions) -> None:
        self.rebuilds = 0
        self._options = options
        self._producer: KafkaProducer | None = None
        self._mending: asyncio.Task[None] | None = None
        self._locks: dict[tuple[str, int], asyncio.Lock] = {}
        self._closing = asyncio.Event()
        self._why = "it is not open"

    async def open(self) -> None:
        """Connect. Raises `UnavailableError`."""
        self._producer = await self._start()

    async def close(self) -> None:
        """Stop; what is under way fails."""
        self._closing.set()
        self._why = "it is closed"
        if self._mending is not None:
            await asyncio.wait([self._mending])
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.discard()

    def require(self) -> KafkaProducer:
        """The producer. Raises `UnavailableError` while there is none."""
        if self._producer is None:
            raise UnavailableError(f"Kafka takes no events: {self._why}")
        return self._producer

    async def send(self, topic: str, partition: int, runs: Sequence[Run]) -> None:
        """Write records to a partition; the brokers have them when this returns.

        Raises `PayloadTooLargeError` or `UnavailableError`; then some may have been written.
        """
        # aiokafka raises a false time-out when several tasks send to a partition.
        lock = self._locks.setdefault((topic, partition), asyncio.Lock())
        async with lock:
            for batch in self._batches(runs):
                await self._send(topic, partition, batch)

    async def check(self) -> None:
        """Raises `UnavailableError` unless every partition of the topic can be reached now."""
        await self.require().check(self._options.topic, self._options.partitions, _CHECK_SECONDS)

    def _batches(self, runs: Sequence[Run]) -> list[Sequence[Run]]:
        """The records in batches of the size wanted."""
        sizes = [[len(value or b"") for value in run.values] for run in runs]
        if max(map(max, sizes), default=0) + _OVERHEAD > self._options.max_record_bytes:
            raise PayloadTooLargeError(
                f"an event has more than {self._options.max_record_bytes} bytes",
                extensions={"maxRecordBytes": self._options.max_record_bytes},
            )
        if sum(map(sum, sizes)) <= self._options.max_batch_bytes:
            return [runs]
        batches: list[Sequence[Run]] = []
        batch: list[Run] = []
        total = 0
        for run, run_sizes in zip(runs, sizes, strict=True):
            first = 0
            for index, size in enumerate(run_sizes):
                if total and total + size > self._options.max_batch_bytes:
                    batches.append([*batch, replace(run, values=run.values[first:index])])
                    batch, first, total = [], index, 0
                total += size
            batch.append(replace(run, values=run.values[first:]))
        return [*batches, batch]

    async def _send(self, topic: str, partition: int, batch: Sequence[Run]) -> None:
        producer = self.require()
        timeout = self._options.delivery_timeout_seconds
        try:
            await producer.send(topic, partition, batch, timeout)
        except TooLargeError:
            self._give_up(producer, "a batch was too large for the topic")
            raise PayloadTooLargeError(
                "the topic does not take an event of this size; its max.message.bytes is too small"
            ) from None
        except UnavailableError as error:
            self._give_up(producer, error.detail)
            raise
        except BaseException:
            # Cancelled while a batch is under way: nobody may send after it out of turn.
            self._give_up(producer, "a write was broken off")
            raise

    def _give_up(self, producer: KafkaProducer, why: str) -> None:
        if self._producer is producer:
            self._producer = None
            self._why = why
            log.warning("the Kafka producer failed and is built anew", reason=why)
            self._mending = asyncio.create_task(self._mend(producer), name="kafka-mend")

    async def _mend(self, old: KafkaProducer) -> None:
        await old.discard()
        pause = _FIRST_PAUSE_SECONDS
        while not self._closing.is_set():
            try:
                self._producer = await self._start()
            except UnavailableError as error:
                self._why = error.detail
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
            else:
                self.rebuilds += 1
                log.info("the Kafka producer works again")
                return

    async def _start(self) -> KafkaProducer:
        producer = KafkaProducer(self._options)
        try:
            await producer.start()
        except BaseException:
            await producer.discard()
            raise
        return producer
