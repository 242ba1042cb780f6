"""The log on Kafka beyond the contract: partitions, other producers, groups, gaps, limits."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_topic import open_topic
from meterline.eventlog.port import LogGapError, LogReader, Record
from meterline.kernel.errors import PayloadTooLargeError, UnavailableError
from tests.support.events import (
    batch,
    batch_of,
    canonical,
    events_of,
    ids_of,
    kafka_log,
    kafka_options,
    opened_kafka_log,
)
from tests.support.kafka import KafkaBroker
from tests.support.ports import free_port

NOW = datetime(2026, 11, 20, 10, 0, 0, 123000, tzinfo=UTC)
STRUCTURED = [("content-type", b"application/cloudevents+json")]


def structured(name: int | str) -> bytes:
    return json.dumps({"specversion": "1.0", **canonical(name)}).encode()


def home_of(name: int | str, partitions: int, namespace: str = "default") -> int:
    key = json.dumps([namespace, "tests", f"event-{name}"], separators=(",", ":"))
    return crc32(key.encode()) % partitions


async def everything(log: LogReader, partition: int = 0, after: int = 0) -> list[Record]:
    found: list[Record] = []
    while records := await log.read(partition, after, 1000):
        found += records
        after = records[-1].offset
    return found


@asynccontextmanager
async def producer(broker: KafkaBroker, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    made = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def raw(broker: KafkaBroker, topic: str, partition: int = 0) -> Sequence[Any]:
    """Every record of a partition, as another reader sees it."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        place = TopicPartition(topic, partition)
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        found: list[Any] = []
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                found += records
        return found
    finally:
        await consumer.stop()


async def test_each_event_is_one_structured_record_in_its_home(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker, partitions=3)
    async with opened_kafka_log(options) as log:
        await log.append("default", NOW, 30, batch_of(range(30)))
        for partition in range(3):
            expected = [name for name in range(30) if home_of(name, 3) == partition]
            assert expected
            records = await raw(kafka_broker, options.topic, partition)
            assert [json.loads(one.value)["id"] for one in records] == [
                f"event-{name}" for name in expected
            ]
            assert records[0].value == b'{"specversion":"1.0",' + batch_of(expected[:1])[2:-1]
            assert records[0].headers == (
                ("content-type", b"application/cloudevents+json; charset=UTF-8"),
                ("meterline-namespace", b"default"),
            )
            assert records[0].timestamp == round(NOW.timestamp() * 1000)
            assert ids_of(await everything(log, partition)) == [f"event-{n}" for n in expected]
        assert await log.ends() == {partition: await log.end(partition) for partition in range(3)}


async def test_records_of_other_producers_are_read(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker)
    attributes = {"specversion": "1.0", "id": "b", "source": "tests", "type": "t", "subject": "s"}
    binary = [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
    async with opened_kafka_log(options) as log, producer(kafka_broker) as other:
        for value, headers in (
            (structured(1), STRUCTURED),
            (structured(2), [*STRUCTURED, ("meterline-namespace", "é".encode())]),
            (b'{"n": 1}', [*binary, ("content-type", b"application/json")]),
            (b"\x00\x01", [*binary[:1], ("ce_id", b"raw"), *binary[2:]]),
        ):
            await other.send_and_wait(options.topic, value, b"key", headers=headers)
        records = await everything(log)
    assert [(record.namespace, record.count) for record in records] == [
        ("default", 1),
        ("é", 1),
        ("default", 2),
    ]
    assert events_of(records) == [
        canonical(1),
        canonical(2),
        canonical(0, id="b", data={"n": 1}, datacontenttype="application/json"),
        canonical(0, id="raw", data=None, data_base64="AAE="),
    ]


async def test_what_cannot_be_read_is_a_fault_with_its_bytes(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker)
    bad: list[tuple[bytes | None, list[tuple[str, bytes]]]] = [
        (b"{", STRUCTURED),
        (None, STRUCTURED),
        (b'{"specversion":"1.0"}', STRUCTURED),
        (structured(7), []),
        (structured(8), [*STRUCTURED, ("meterline-namespace", b"\xff")]),
        (b"[]", [("content-type", b"application/cloudevents-batch+json")]),
    ]
    async with opened_kafka_log(options) as log, producer(kafka_broker) as other:
        await log.append("default", NOW, 1, batch_of([1]))
        for value, headers in bad:
            await other.send_and_wait(options.topic, value, b"key", headers=headers)
        await log.append("default", NOW, 1, batch_of([2]))
        records = await everything(log)
        assert ids_of(record for record in records if record.fault is None) == [
            "event-1",
            "event-2",
        ]
        faults = [record for record in records if record.fault is not None]
        assert [record.offset for record in faults] == [2, 3, 4, 5, 6, 7]
        assert [record.events for record in faults] == [value or b"" for value, _ in bad]
        assert [record.count for record in faults] == [0] * len(bad)
        assert all(record.fault for record in faults)
        for record in faults:
            await log.dead_letter(record, record.fault or "")
        letters = await raw(kafka_broker, options.dead_letter_topic)
        assert [letter.value for letter in letters] == [value or b"" for value, _ in bad]
        assert [letter.key for letter in letters] == [b"key"] * len(bad)
        for letter, (_, headers), record in zip(letters, bad, faults, strict=True):
            assert list(letter.headers) == [
                *headers,
                ("meterline-dead-letter-reason", (record.fault or "").encode()),
                ("meterline-dead-letter-topic", options.topic.encode()),
                ("meterline-dead-letter-partition", b"0"),
                ("meterline-dead-letter-offset", b"%d" % (record.offset - 1)),
            ]


async def test_all_events_of_a_record_become_dead_letters(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker)
    async with opened_kafka_log(options) as log:
        await log.append("default", NOW, 2500, batch_of(range(2500)))
        record = (await everything(log))[-1]
        await log.dead_letter(record, "x" * 5000)
        letters = await raw(kafka_broker, options.dead_letter_topic)
    assert [json.loads(letter.value)["id"] for letter in letters] == ids_of([record])
    assert len(dict(letters[0].headers)["meterline-dead-letter-reason"]) == 1000


async def test_strays_come_out_of_their_home_and_nowhere_else(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker, partitions=3)
    async with opened_kafka_log(options) as log, producer(kafka_broker) as other:
        for name in range(60):
            await other.send_and_wait(
                options.topic, structured(name), b"k", partition=0, headers=STRUCTURED
            )
        at_home = [name for name in range(60) if home_of(name, 3) == 0]
        assert at_home != list(range(60))
        records = await everything(log, 0)
        assert ids_of(records) == [f"event-{name}" for name in at_home]
        # The position gets past the strays at the end.
        assert records[-1].offset == await log.end(0) == 60
        assert await log.wait(0, records[-1].offset, 0.05) is False
        assert log.forwarded == 60 - len(at_home)
        for partition in (1, 2):
            expected = [f"event-{n}" for n in range(60) if home_of(n, 3) == partition]
            assert ids_of(await everything(log, partition)) == expected
        assert [one.key for one in await raw(kafka_broker, options.topic, 1)][:1] == [b"k"]


async def test_transactions_of_other_producers_are_respected(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker)
    async with opened_kafka_log(options) as log:
        async with producer(kafka_broker, transactional_id=options.topic) as other:
            for name in range(6):
                await other.begin_transaction()
                await other.send_and_wait(options.topic, structured(name), headers=STRUCTURED)
                if name % 2:
                    await other.abort_transaction()
                else:
                    await other.commit_transaction()
        records: list[Record] = []
        async with asyncio.timeout(20):
            # The last marker is written a moment after the producer was told.
            while not records or records[-1].offset < 12:
                await log.wait(0, records[-1].offset if records else 0, 1)
                records += await everything(log, 0, records[-1].offset if records else 0)
        assert ids_of(records) == ["event-0", "event-2", "event-4"]


async def test_a_reader_reads_on_after_a_position_in_the_middle(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker)
    async with opened_kafka_log(options) as log:
        await log.append("default", NOW, 5000, batch_of(range(5000)))
        for after in (0, 1, 999, 1000, 1234, 4999):
            found: list[str] = []
            position = after
            while records := await log.read(0, position, 700):
                found += ids_of(records)
                position = records[-1].offset
            assert found == [f"event-{name}" for name in range(after, 5000)]


async def test_the_reader_stays_within_its_bounds(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker, prefetch_events=2000, prefetch_bytes=150_000)
    async with opened_kafka_log(options) as log:
        await log.append("default", NOW, 9000, batch_of(range(9000)))
        feed = log._feed(0)
        assert await log.wait(0, 0, 10)
        read: list[Record] = []
        while len(ids_of(read)) < 9000:
            assert await log.wait(0, read[-1].offset if read else 0, 10)
            assert feed._events <= 3000 and feed._bytes <= 350_000
            read += await log.read(0, read[-1].offset if read else 0, 1000)
        assert ids_of(read) == [f"event-{name}" for name in range(9000)]


class Share:
    """What a reader was told."""

    def __init__(self) -> None:
        self.mine: frozenset[int] = frozenset()
        self.told: list[frozenset[int]] = []
        self._news = asyncio.Event()

    async def changed(self, partitions: frozenset[int]) -> None:
        self.mine = partitions
        self.told.append(partitions)
        self._news.set()

    async def until(self, wanted: Callable[[frozenset[int]], bool]) -> None:
        async with asyncio.timeout(30):
            while not wanted(self.mine):
                self._news.clear()
                await self._news.wait()


async def test_two_readers_share_the_partitions(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker, partitions=4)
    both = frozenset(range(4))
    one, two = Share(), Share()
    async with opened_kafka_log(options) as log:
        await log.subscribe(one.changed)
        await one.until(lambda mine: mine == both)
        async with opened_kafka_log(options) as other:
            await other.subscribe(two.changed)
            await two.until(lambda mine: len(mine) == 2)
            await one.until(lambda mine: len(mine) == 2)
            assert one.mine | two.mine == both
            # It let go of everything before the other got anything.
            assert frozenset() in one.told[1:]
            assert log.rebalances == 2
        await one.until(lambda mine: mine == both)


async def test_a_partition_has_one_reader_at_a_time(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker, partitions=4)
    owners: dict[int, str] = {}
    shared: list[int] = []

    class SlowShare(Share):
        """Takes its time to let go, as a sink does that finishes a plan."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self._name = name

        async def changed(self, partitions: frozenset[int]) -> None:
            for partition in partitions:
                if owners.setdefault(partition, self._name) != self._name:
                    shared.append(partition)
            await asyncio.sleep(0.3)
            for partition in [one for one, name in owners.items() if name == self._name]:
                if partition not in partitions:
                    del owners[partition]
            await super().changed(partitions)

    one = SlowShare("one")
    async with opened_kafka_log(options) as log:
        await log.subscribe(one.changed)
        await one.until(lambda mine: len(mine) == 4)
        for _ in range(2):
            two = SlowShare("two")
            async with opened_kafka_log(options) as other:
                await other.subscribe(two.changed)
                await two.until(lambda mine: len(mine) == 2)
                await one.until(lambda mine: len(mine) == 2)
            # Its partitions are free once it has left; a sink has stopped by then.
            for partition in two.mine:
                owners.pop(partition, None)
            await one.until(lambda mine: len(mine) == 4)
    assert shared == []


async def test_the_group_shows_how_far_its_readers_are(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker)
    share = Share()
    async with opened_kafka_log(options) as log:
        await log.subscribe(share.changed)
        await share.until(bool)
        await log.append("default", NOW, 10, batch_of(range(10)))
        await log.trim(0, 7)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_broker.bootstrap, group_id=options.group)
    await consumer.start()
    try:
        assert await consumer.committed(TopicPartition(options.topic, 0)) == 7
    finally:
        await consumer.stop()


async def delete_records(broker: KafkaBroker, topic: str, before: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        place = TopicPartition(topic, 0)
        await admin.delete_records({place: RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


async def test_records_deleted_before_they_were_read_are_an_error(
    kafka_broker: KafkaBroker,
) -> None:
    options = kafka_options(kafka_broker)
    async with opened_kafka_log(options) as log:
        await log.append("default", NOW, 100, batch_of(range(100)))
        await delete_records(kafka_broker, options.topic, 60)
        for _ in range(2):
            with pytest.raises(LogGapError, match="30 to 60 were deleted"):
                await log.read(0, 30, 100)
            with pytest.raises(LogGapError):
                await log.wait(0, 30, 5)
        # A new reader has lost nothing that it was promised.
        assert ids_of(await log.read(0, 0, 100)) == [f"event-{name}" for name in range(60, 100)]
        await log.skip(0, 60)
        assert ids_of(await log.read(0, 30, 100)) == [f"event-{name}" for name in range(60, 100)]


async def test_a_topic_that_was_made_anew_is_an_error(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker)
    async with opened_kafka_log(options) as log:
        await log.append("default", NOW, 3, batch_of(range(3)))
        with pytest.raises(LogGapError, match="ends at 3, and events up to 500"):
            await log.read(0, 500, 100)
        with pytest.raises(LogGapError):
            await log.wait(0, 500, 5)
        with pytest.raises(LogGapError):
            await log.skip(0, 500)
        assert len(await log.read(0, 0, 100)) == 1


async def test_opening_checks_the_topic(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker, partitions=2)
    with pytest.raises(UnavailableError, match="does not exist"):
        await open_topic(replace(options, create_topics=False))
    await asyncio.gather(*(open_topic(options) for _ in range(3)))
    await open_topic(replace(options, create_topics=False))
    with pytest.raises(UnavailableError, match="has 2 partitions, and the settings say 3"):
        await open_topic(replace(options, partitions=3))
    with pytest.raises(UnavailableError):
        await open_topic(replace(options, bootstrap=f"127.0.0.1:{free_port()}"))


async def test_no_broker_is_an_error_at_once() -> None:
    options = KafkaOptions(bootstrap=f"127.0.0.1:{free_port()}")
    log = kafka_log(options)
    for call in (log.open, log.writer.open, log.check, log.writer.check, log.ends):
        with pytest.raises(UnavailableError):
            await call()
    with pytest.raises(UnavailableError):
        await log.append("default", NOW, 1, batch_of([1]))
    await log.close()


async def test_a_full_queue_refuses_and_recovers(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker, max_waiting_bytes=100_000)
    events = [batch_of([f"{number}-{'x' * 1000}"]) for number in range(200)]
    async with opened_kafka_log(options) as log:
        outcomes = await asyncio.gather(
            *(log.append("default", NOW, 1, one) for one in events), return_exceptions=True
        )
        refused = [one for one in outcomes if one is not None]
        assert 0 < len(refused) < 200
        assert all(isinstance(one, UnavailableError) and "full" in one.detail for one in refused)
        assert log.writer.buffered_bytes == 0
        await log.append("default", NOW, 1, batch_of(["last"]))
        assert len(ids_of(await everything(log))) == 201 - len(refused)


async def test_large_events(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker, max_record_bytes=3_000_000, partitions=2)
    big = canonical("big", data={"text": "x" * 2_500_000})
    async with opened_kafka_log(options) as log:
        await log.append("default", NOW, 3, batch([canonical(1), big, canonical(2)]))
        huge = canonical("huge", data={"text": "x" * 3_000_000})
        with pytest.raises(PayloadTooLargeError):
            await log.append("default", NOW, 1, batch([huge]))
        await log.append("default", NOW, 1, batch_of([3]))
        assert log.writer.rebuilds == 0
        found = [*await everything(log, 0), *await everything(log, 1)]
        assert sorted(ids_of(found)) == ["event-1", "event-2", "event-3", "event-big"]
        await log.writer.check()
        await log.check()


async def test_an_append_that_is_broken_off_harms_nobody(kafka_broker: KafkaBroker) -> None:
    options = kafka_options(kafka_broker)
    async with opened_kafka_log(options) as log:
        calls = [
            asyncio.create_task(log.append("default", NOW, 1, batch_of([name])))
            for name in range(20)
        ]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        found = ids_of(await everything(log))
        assert {f"event-{name}" for name in range(1, 20, 2)} <= set(found)
        assert log.writer.buffered_bytes == 0
