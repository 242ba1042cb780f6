"""Requests to Apache Kafka: the one file that knows aiokafka.

The reader fetches by itself instead of through `AIOKafkaConsumer`: that spends 4 µs on each record
before anybody has looked at it, and this a third. So some inner parts of aiokafka are used here
(its client, group coordinator and record reader); the version is locked, and the contract suite
runs on a real broker.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, dropwhile
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer, ConsumerRebalanceListener
from aiokafka import errors as kafka_errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_rows import Fetched, Row, Run
from meterline.kernel.errors import UnavailableError

log = structlog.get_logger(__name__)

EARLIEST = -2
LATEST = -1
FETCH_WAIT_SECONDS = 0.5
"""How long a broker holds a fetch while it has nothing."""

_COMMITTED = 1
_LEAVE_SECONDS = 3.0
_IDLE_MS = 540_000
_ERRORS = (kafka_errors.KafkaError, OSError, TimeoutError, AssertionError)
_NO_LIMIT = 1 << 30


class OutOfRangeError(Exception):
    """The partition has no such offset: it is before the first, or beyond the end."""


class TooLargeError(Exception):
    """The topic does not take a batch of this size."""


@contextlib.contextmanager
def reachable(what: str) -> Iterator[None]:
    """Turns failures of brokers and network into `UnavailableError`."""
    try:
        yield
    except _ERRORS as error:
        text = f"{type(error).__name__}: {error}".rstrip(": ")
        raise UnavailableError(f"{what}: {text}"[:500]) from error


def _connection(options: KafkaOptions) -> dict[str, Any]:
    context = None
    if options.security_protocol in ("SSL", "SASL_SSL"):
        context = ssl.create_default_context(cafile=options.ssl_ca_file)
        context.check_hostname = options.ssl_check_hostname
        if options.ssl_cert_file is not None:
            context.load_cert_chain(options.ssl_cert_file, options.ssl_key_file)
    return {
        "bootstrap_servers": [one.strip() for one in options.bootstrap.split(",")],
        "client_id": "meterline",
        "request_timeout_ms": round(options.request_timeout_seconds * 1000),
        "connections_max_idle_ms": _IDLE_MS,
        "security_protocol": options.security_protocol,
        "ssl_context": context,
        "sasl_mechanism": options.sasl_mechanism,
        "sasl_plain_username": options.sasl_username,
        "sasl_plain_password": options.sasl_password,
    }


async def create_topic(
    options: KafkaOptions, name: str, partitions: int, settings: Mapping[str, str]
) -> None:
    """Make a topic; nothing happens when it is there. Raises `UnavailableError`."""
    admin = AIOKafkaAdminClient(**_connection(options))
    with reachable(f"the topic {name} cannot be made"):
        try:
            await admin.start()
            topic = NewTopic(name, partitions, options.replication, topic_configs=dict(settings))
            answer = await admin.create_topics([topic])
            for _, code, *rest in answer.topic_errors:
                error = kafka_errors.for_code(code)
                if error not in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
                    raise error(*rest)
        finally:
            await admin.close()


class KafkaClient:
    """Reads what brokers know of a topic, and its records."""

    def __init__(self, options: KafkaOptions, topic: str) -> None:
        self._topic = topic
        self._fetch_bytes = options.fetch_bytes
        self._timeout = options.request_timeout_seconds
        self.inner: Any = AIOKafkaClient(**_connection(options))

    async def open(self) -> None:
        """Connect. Raises `UnavailableError`."""
        with reachable("Kafka cannot be reached"):
            await self.inner.bootstrap()  # has its own time-out; broken off, it would leak
            async with asyncio.timeout(self._timeout):
                await self.inner.add_topic(self._topic)

    async def close(self) -> None:
        """Close all connections."""
        await self.inner.close()

    async def partitions(self) -> int:
        """How many partitions the topic has; 0 when there is no such topic."""
        with reachable("Kafka cannot be reached"):
            async with asyncio.timeout(self._timeout):
                await self.inner.force_metadata_update()
        return len(self.inner.cluster.partitions_for_topic(self._topic) or ())

    async def offsets(
        self, partitions: Iterable[int], which: int, timeout_seconds: float | None = None
    ) -> dict[int, int]:
        """The first offset (`EARLIEST`) or that behind the last (`LATEST`) of each partition."""
        with reachable("Kafka does not tell its offsets"):
            async with asyncio.timeout(timeout_seconds or self._timeout):
                return await list_offsets(self.inner, self._topic, partitions, which)

    async def fetch(self, partition: int, offset: int, lane: str) -> Fetched:
        """Records from `offset` on; waits a little when there are none.

        Each `lane` is a connection of its own, for a broker works on one request of a connection
        at a time. Raises `OutOfRangeError` or `UnavailableError`.
        """
        asked = [(self._topic, [(partition, offset, self._fetch_bytes)])]
        request = FetchRequest(
            round(FETCH_WAIT_SECONDS * 1000), 1, self._fetch_bytes, _COMMITTED, asked
        )
        with reachable("Kafka cannot be read"):
            node = _leader(self.inner, self._topic, partition)
            response = await self.inner.send(node, request, group=lane)
            code, _, lso, *rest = response.topics[0][1][0][1:]
            error = kafka_errors.for_code(code)
            if error is kafka_errors.OffsetOutOfRangeError:
                raise OutOfRangeError
            if error is not kafka_errors.NoError:
                self.inner.force_metadata_update()
                raise error
            aborted = rest[1] if response.API_VERSION >= 5 else rest[0]
            batches, after = _batches(rest[-1], offset, aborted)
        rows = dropwhile(lambda row: row.offset < offset, chain.from_iterable(batches))
        return Fetched(rows, after, lso)

    def leave(self, lane: str) -> None:
        """Close the connections of a lane, whatever is under way on them."""
        for key in [key for key in self.inner._conns if key[1] == lane]:
            self.inner._conns.pop(key).close()


def _leader(client: Any, topic: str, partition: int) -> int:
    node: int | None = client.cluster.leader_for_partition(TopicPartition(topic, partition))
    if node is None or node == -1:
        client.force_metadata_update()
        raise kafka_errors.LeaderNotAvailableError(f"partition {partition} has no leader")
    return node


async def list_offsets(
    client: Any, topic: str, partitions: Iterable[int], which: int
) -> dict[int, int]:
    """See `KafkaClient.offsets`."""
    nodes: dict[int, list[tuple[int, int]]] = {}
    for partition in partitions:
        nodes.setdefault(_leader(client, topic, partition), []).append((partition, which))
    found: dict[int, int] = {}
    for node, asked in nodes.items():
        response = await client.send(node, OffsetRequest(-1, _COMMITTED, [(topic, asked)]))
        for partition, code, _, offset in response.topics[0][1]:
            error = kafka_errors.for_code(code)
            if error is not kafka_errors.NoError:
                client.force_metadata_update()
                raise error
            found[partition] = offset
    return found


def _batches(
    data: bytes, offset: int, aborted: Sequence[tuple[int, int]] | None
) -> tuple[list[Iterable[Row]], int]:
    """The batches that count, and where the next fetch goes on."""
    pending = sorted(aborted or (), key=lambda one: one[1])
    aborting: set[int] = set()
    found: list[Iterable[Row]] = []
    records: Any = MemoryRecords(data)
    while records.has_next():
        batch = records.next_batch()
        if not batch.validate_crc():
            raise kafka_errors.CorruptRecordException("a batch's checksum is wrong")
        offset = max(offset, batch.next_offset)
        while pending and pending[0][1] <= batch.base_offset:
            aborting.add(pending.pop(0)[0])
        if batch.is_control_batch:
            marker = next(batch)
            if ControlRecord.parse(marker.key) == ABORT_MARKER:
                aborting.discard(batch.producer_id)
        elif not (batch.is_transactional and batch.producer_id in aborting):
            found.append(batch)
    return found, offset


class KafkaProducer:
    """An idempotent producer that waits for all replicas. After a failure it is of no more use."""

    def __init__(self, options: KafkaOptions) -> None:
        self._timeout = min(options.delivery_timeout_seconds, options.request_timeout_seconds)
        self._inner: Any = AIOKafkaProducer(
            **{**_connection(options), "request_timeout_ms": round(self._timeout * 1000)},
            acks="all",
            enable_idempotence=True,
            compression_type=None if options.compression == "none" else options.compression,
            max_batch_size=_NO_LIMIT,
            max_request_size=_NO_LIMIT,
        )

    async def start(self) -> None:
        """Connect and be given a producer id: a broker is there. Raises `UnavailableError`."""
        with reachable("Kafka cannot be reached"):
            await self._inner.client.bootstrap()
            async with asyncio.timeout(self._timeout):
                await self._inner._sender.start()

    async def send(
        self, topic: str, partition: int, runs: Iterable[Run], timeout_seconds: float
    ) -> None:
        """Write one batch. Only one task at a time may send to a partition.

        Raises `TooLargeError`, or `UnavailableError`; then it may have been written or not.
        """
        batch = self._inner.create_batch()
        # Straight into its buffer: the way around it takes as long again as this.
        append = batch._builder.append
        count = 0
        for run in runs:
            timestamp, key, headers = run.timestamp, run.key, run.headers
            for count, value in enumerate(run.values, count + 1):  # noqa: B020
                append(count - 1, timestamp, key, value, headers)
        batch._relative_offset = count
        with reachable("Kafka does not take events"):
            try:
                async with asyncio.timeout(timeout_seconds):
                    await (await self._inner.send_batch(batch, topic, partition=partition))
            except kafka_errors.MessageSizeTooLargeError:
                raise TooLargeError from None

    async def check(self, topic: str, partitions: int, timeout_seconds: float) -> None:
        """Raises `UnavailableError` unless the leader of every partition answers."""
        with reachable("Kafka cannot be reached"):
            async with asyncio.timeout(timeout_seconds):
                await list_offsets(self._inner.client, topic, range(partitions), LATEST)

    async def discard(self) -> None:
        """Give up what is under way, and close.

        `stop` would wait for what cannot be delivered.
        """
        inner = self._inner
        inner._closed = True
        with contextlib.suppress(*_ERRORS):
            task = inner._sender.sender_task
            if task is not None:
                task.cancel()
                for connection in list(inner.client._conns.values()):
                    connection.close()
                _, late = await asyncio.wait([task], timeout=_LEAVE_SECONDS)
                if late:
                    task.cancel()
                    await asyncio.wait([task], timeout=_LEAVE_SECONDS)
            waiting = inner._message_accumulator
            batches = [*waiting._pending_batches, *chain.from_iterable(waiting._batches.values())]
            waiting.fail_all(kafka_errors.ProducerClosed())
            for future in chain.from_iterable((one.future, one._drain_waiter) for one in batches):
                if future.done() and not future.cancelled():
                    future.exception()  # it has been seen
            await inner.client.close()


class Membership(ConsumerRebalanceListener):  # type: ignore[misc]
    """A place in a consumer group, which shares out the partitions of a topic."""

    def __init__(
        self,
        client: KafkaClient,
        options: KafkaOptions,
        changed: Callable[[frozenset[int]], Awaitable[None]],
    ) -> None:
        """`changed` is awaited before partitions are given to others, and after some were got."""
        self._topic = options.topic
        self._changed = changed
        self._state: Any = SubscriptionState()
        self._active = self._state.fetch_context()
        self._active.__enter__()  # else it would leave the group for want of polls
        self._state.subscribe({options.topic}, listener=self)
        self._inner: Any = GroupCoordinator(
            client.inner,
            self._state,
            group_id=options.group,
            session_timeout_ms=round(options.session_timeout_seconds * 1000),
            # This often it hears of others who come and go.
            heartbeat_interval_ms=min(1000, round(options.session_timeout_seconds * 1000 / 4)),
            rebalance_timeout_ms=round(options.rebalance_timeout_seconds * 1000),
            enable_auto_commit=False,
            assignors=(RoundRobinPartitionAssignor,),
        )

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Called by aiokafka before it joins anew; all partitions are let go."""
        await self._changed(frozenset())

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Called by aiokafka after it joined."""
        await self._changed(frozenset(one.partition for one in assigned))

    def rejoin(self) -> None:
        """Have the partitions shared out again."""
        self._inner.request_rejoin()

    def check(self) -> None:
        """Raises `UnavailableError` when the group cannot be taken part in; call it now and then,
        for the next try begins only after the failure was seen."""
        with reachable("the consumer group cannot be joined"):
            self._inner.check_errors()

    @property
    def alive(self) -> bool:
        """Whether it still looks after its place; once it does not, it is of no more use."""
        return not self._inner._coordination_task.done()

    async def commit(self, positions: Mapping[int, int]) -> None:
        """Tell the group Kafka's offset of the next record, by partition, for those who watch."""
        assignment = self._state.subscription and self._state.subscription.assignment
        if assignment is None:
            return
        offsets = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(offset, "")
            for partition, offset in positions.items()
        }
        with reachable("positions cannot be committed"):
            await self._inner.commit_offsets(assignment, offsets)

    async def close(self) -> None:
        """Leave the group."""
        with contextlib.suppress(*_ERRORS):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._inner.close()
        for task in (self._inner._coordination_task, self._inner._heartbeat_task):
            if task is not None:
                task.cancel()
        self._active.__exit__(None, None, None)
