"""The log on Kafka while its broker dies, comes back, or freezes."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from meterline.eventlog import kafka
from meterline.eventlog.kafka_log import KafkaLog
from meterline.kernel.errors import UnavailableError
from tests.support.events import batch_of, ids_of, kafka_options, opened_kafka_log
from tests.support.kafka import KafkaBroker, require_class_path

NOW = datetime(2026, 11, 20, tzinfo=UTC)
QUICK = {
    "delivery_timeout_seconds": 1.0,
    "request_timeout_seconds": 3.0,
    "session_timeout_seconds": 3.0,
}


@pytest.fixture(scope="module")
def broker() -> Iterator[KafkaBroker]:
    """A broker that these tests alone disturb; each leaves it running."""
    with KafkaBroker(require_class_path()) as own:
        yield own


class Load:
    """Clients that append for ever, and remember what was acknowledged and what was refused."""

    def __init__(self, log: KafkaLog, clients: int = 8) -> None:
        self.acknowledged: set[str] = set()
        self.refused = 0
        self.slowest = 0.0
        self._log = log
        self._progress = asyncio.Condition()
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(clients)]

    async def _client(self, client: int) -> None:
        number = 0
        while True:
            names = [f"{client}-{number}-{index}" for index in range(10)]
            number += 1
            started = time.monotonic()
            try:
                await self._log.append("default", NOW, len(names), batch_of(names))
            except UnavailableError:
                self.refused += 1
                await asyncio.sleep(0.02)
            else:
                self.acknowledged |= {f"event-{name}" for name in names}
            self.slowest = max(self.slowest, time.monotonic() - started)
            async with self._progress:
                self._progress.notify_all()

    async def more(self, events: int = 200) -> None:
        """Wait until so many more events are acknowledged."""
        wanted = len(self.acknowledged) + events
        async with asyncio.timeout(40):
            await self._until(lambda: len(self.acknowledged) >= wanted)

    async def refusals(self) -> None:
        """Wait until some appends were refused."""
        wanted = self.refused + 20
        async with asyncio.timeout(20):
            await self._until(lambda: self.refused >= wanted)

    async def _until(self, done: Callable[[], bool]) -> None:
        async with self._progress:
            await self._progress.wait_for(done)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def everything(log: KafkaLog, partitions: int) -> set[str]:
    """Every event in the log; patient with a broker that has only just come back."""
    found: set[str] = set()
    async with asyncio.timeout(60):
        for partition in range(partitions):
            position, end = 0, await patient(log.end, partition)
            while position < end:
                records = await patient(log.read, partition, position, 10_000)
                found.update(ids_of(records))
                position = records[-1].offset if records else position
    return found


async def patient(call: Any, *arguments: Any) -> Any:
    while True:
        with suppress(UnavailableError):
            return await call(*arguments)
        await asyncio.sleep(0.1)


async def test_what_was_acknowledged_outlives_the_brokers_kill(broker: KafkaBroker) -> None:
    options = kafka_options(broker, partitions=3, **QUICK)
    async with opened_kafka_log(options) as log:
        load = Load(log)
        for _ in range(2):
            await load.more()
            await asyncio.to_thread(broker.kill)
            await load.refusals()
            with pytest.raises(UnavailableError):
                await log.writer.check()
            await asyncio.to_thread(broker.start)
            await load.more()
        await load.stop()
        assert load.acknowledged <= await everything(log, 3)
        assert log.writer.rebuilds >= 2
        assert log.writer.buffered_bytes == 0
        await log.writer.check()
        await log.check()


async def test_an_acknowledgement_before_the_brokers_would_be_noticed(
    broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with the wait for the brokers left out, the same test finds events missing."""

    async def hasty(self: Any, topic: str, partition: int, runs: Any, timeout: float) -> None:
        asyncio.get_running_loop().create_task(late(self, topic, partition, list(runs)))

    async def late(producer: Any, topic: str, partition: int, runs: Any) -> None:
        await asyncio.sleep(0.3)  # what a busy broker may take
        with suppress(Exception):
            await sound(producer, topic, partition, runs, 1.0)

    sound = kafka.KafkaProducer.send
    options = kafka_options(broker, **QUICK)
    async with opened_kafka_log(options) as log:
        monkeypatch.setattr(kafka.KafkaProducer, "send", hasty)
        load = Load(log, clients=2)
        await load.more(50)
        await asyncio.to_thread(broker.kill)
        await load.stop()
        monkeypatch.undo()
        await asyncio.to_thread(broker.start)
        assert not load.acknowledged <= await everything(log, 1)


async def test_a_frozen_broker(broker: KafkaBroker) -> None:
    options = kafka_options(broker, partitions=2, max_waiting_bytes=20_000, **QUICK)
    async with opened_kafka_log(options) as log:
        load = Load(log)
        await load.more()
        broker.freeze()
        try:
            await load.refusals()
            # Once it is known to be away, nobody waits for it.
            started = time.monotonic()
            with pytest.raises(UnavailableError):
                await log.append("default", NOW, 1, batch_of(["x"]))
            assert time.monotonic() - started < 0.5
            with pytest.raises(UnavailableError):
                await log.check()
            assert time.monotonic() - started < 4
            with pytest.raises(UnavailableError):
                await log.ends()
            assert log.writer.buffered_bytes <= 20_000
            await load.refusals()
        finally:
            broker.thaw()
        await load.more()
        await load.stop()
        assert load.slowest < 3
        assert load.acknowledged <= await everything(log, 2)


async def test_a_reader_reads_on_after_an_outage(broker: KafkaBroker) -> None:
    options = kafka_options(broker, **QUICK)
    told: list[frozenset[int]] = []
    news = asyncio.Event()

    async def changed(partitions: frozenset[int]) -> None:
        told.append(partitions)
        news.set()

    async def until_mine() -> None:
        async with asyncio.timeout(60):
            while not told[-1]:
                news.clear()
                await news.wait()

    async with opened_kafka_log(options) as log:
        await log.subscribe(changed)
        await until_mine()
        await log.append("default", NOW, 3, batch_of([1, 2, 3]))
        assert await log.wait(0, 0, 10)
        records = list(await log.read(0, 0, 100))
        await log.trim(0, records[-1].offset)
        await asyncio.to_thread(broker.stop)
        with pytest.raises(UnavailableError):
            while True:
                await log.wait(0, records[-1].offset, 5)
        await asyncio.to_thread(broker.start)
        await patient(log.append, "default", NOW, 2, batch_of([4, 5]))
        while len(ids_of(records)) < 5:
            after = records[-1].offset
            if await patient(log.wait, 0, after, 5):
                records += await patient(log.read, 0, after, 100)
        assert ids_of(records)[-2:] == ["event-4", "event-5"]
        # And it is, or becomes, a member of its group again.
        await until_mine()
