"""What every event log promises, run on each adapter."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meterline.eventlog.memory import MemoryLog
from meterline.eventlog.port import EventLog, Record
from meterline.eventlog.records import clip
from meterline.eventlog.sqlite import SqliteLog
from meterline.kernel.errors import UnavailableError
from tests.support.events import (
    batch,
    batch_of,
    canonical,
    events_of,
    ids_of,
    kafka_options,
    opened_kafka_log,
)
from tests.support.kafka import KafkaBroker

NOW = datetime(2026, 11, 20, 10, 0, 0, 123000, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite", "kafka"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventLog]:
    if request.param == "kafka":
        broker: KafkaBroker = request.getfixturevalue("kafka_broker")
        async with opened_kafka_log(kafka_options(broker)) as opened:
            yield opened
        return
    log: EventLog = MemoryLog() if request.param == "memory" else SqliteLog(tmp_path / "log")
    yield log
    await log.close()


async def append(log: EventLog, *names: int | str, namespace: str = "default") -> None:
    await log.append(namespace, NOW, len(names), batch_of(names))


async def everything(log: EventLog, after: int = 0, max_events: int = 1000) -> list[Record]:
    found: list[Record] = []
    while records := await log.read(0, after, max_events):
        found += records
        after = records[-1].offset
    return found


def ids(*names: int | str) -> list[str]:
    return [f"event-{name}" for name in names]


async def test_a_new_log_is_empty(log: EventLog) -> None:
    assert log.partition_count() == 1
    assert await log.end(0) == 0
    assert await log.ends() == {0: 0}
    assert await log.read(0, 0, 100) == []
    assert await log.count(0, 0) == 0


async def test_a_batch_comes_back_as_it_was_appended(log: EventLog) -> None:
    events = batch(
        [
            canonical("é" * 500, data={"text": '\\ " \n é 😀'}),
            canonical(2, time="2026-11-20T10:00:00Z", datacontenttype="application/json"),
            canonical(3, data=None, _raw="[1,2]", _ext={"tenantid": "x", "flag": True, "n": 3}),
        ]
    )
    await log.append("tenant-é", NOW, 3, events)
    records = await log.read(0, 0, 100)
    assert b"".join(record.events for record in records) == events
    assert [record.namespace for record in records] == ["tenant-é"]
    assert [(record.partition, record.count, record.ingested_at) for record in records] == [
        (0, 3, NOW)
    ]
    assert [record.fault for record in records] == [None]
    assert await log.end(0) == records[-1].offset > 0
    assert await log.ends() == {0: records[-1].offset}


async def test_the_places_of_events_ascend_up_to_the_records_offset(log: EventLog) -> None:
    for number in range(5):
        await append(log, f"{number}a", f"{number}b", f"{number}c")
    last = 0
    for record in await everything(log):
        offsets = record.places.offsets if record.places else [record.offset]
        assert last < offsets[0] == record.first_offset
        assert list(offsets) == sorted(set(offsets))
        assert offsets[-1] == record.offset
        if record.places:
            assert len(offsets) == record.count == len(record.places.ingested_at_ms)
            assert set(record.places.ingested_at_ms) == {round(NOW.timestamp() * 1000)}
        last = record.offset


async def test_parallel_appends_come_back_once_each(log: EventLog) -> None:
    await asyncio.gather(*(append(log, f"{number}-1", f"{number}-2") for number in range(300)))
    found = ids_of(await everything(log))
    assert sorted(found) == sorted(ids(*(f"{n}-{i}" for n in range(300) for i in (1, 2))))
    # A batch stays together, in its order.
    for number in range(300):
        at = found.index(f"event-{number}-1")
        assert found[at + 1] == f"event-{number}-2"


@pytest.mark.parametrize("max_events", [1, 7, 1000])
async def test_reading_goes_on_without_loss_or_repetition(log: EventLog, max_events: int) -> None:
    for number in range(40):
        await append(log, number)
    assert ids_of(await everything(log, max_events=max_events)) == ids(*range(40))


async def test_a_read_gives_at_least_one_record(log: EventLog) -> None:
    await append(log, *range(50))
    assert await log.read(0, 0, 1) != []


async def test_a_position_can_be_read_again(log: EventLog) -> None:
    await append(log, 1, 2)
    await append(log, 3)
    first = await log.read(0, 0, 1000)
    assert ids_of(await log.read(0, 0, 1000)) == ids_of(first) == ids(1, 2, 3)
    end = await log.end(0)
    assert await log.read(0, end, 1000) == []
    await append(log, 4)
    assert ids_of(await log.read(0, end, 1000)) == ids(4)
    assert ids_of(await log.read(0, 0, 1000)) == ids(1, 2, 3, 4)


async def test_a_range_that_is_read_again_and_clipped_is_the_same(log: EventLog) -> None:
    await append(log, *range(10))
    first = await log.read(0, 0, 1000)
    through = first[-1].offset
    await append(log, *range(10, 20))

    def within(records: Sequence[Record]) -> list[Record]:
        return [part for part in (clip(record, through) for record in records) if part]

    assert events_of(within(await log.read(0, 0, 1000))) == events_of(first)
    assert ids_of(within(await everything(log))) == ids(*range(10))


async def test_namespaces_keep_apart(log: EventLog) -> None:
    for number, namespace in enumerate(["a", "b", "b", "a"]):
        await append(log, number, namespace=namespace)
    found = [
        (record.namespace, name) for record in await everything(log) for name in ids_of([record])
    ]
    assert found == list(zip(["a", "b", "b", "a"], ids(0, 1, 2, 3), strict=True))


async def test_the_events_after_an_offset_are_counted(log: EventLog) -> None:
    await append(log, 1, 2, 3)
    position = await log.end(0)
    await append(log, 4, 5)
    assert await log.count(0, 0) == 5
    assert await log.count(0, position) == 2
    assert await log.count(0, await log.end(0)) == 0


async def test_waiting_ends_when_a_record_is_appended(log: EventLog) -> None:
    waiting = asyncio.create_task(log.wait(0, 0, 30))
    await asyncio.sleep(0)
    assert not waiting.done()
    await append(log, 1)
    assert await waiting is True
    assert await log.wait(0, 0, 5) is True
    assert await log.wait(0, await log.end(0), 0.01) is False


async def test_a_trim_leaves_what_comes_after(log: EventLog) -> None:
    await append(log, 1, 2)
    position = await log.end(0)
    await append(log, 3)
    await log.trim(0, position)
    await log.trim(0, 0)
    assert ids_of(await log.read(0, position, 100)) == ids(3)
    await log.trim(0, await log.end(0))
    assert await log.read(0, await log.end(0), 100) == []


async def test_instants_before_1970_do_no_harm(log: EventLog) -> None:
    await log.append("default", NOW - timedelta(days=200 * 365), 1, batch_of([1]))
    assert ids_of(await log.read(0, 0, 100)) == ids(1)


async def test_a_reader_is_told_its_partitions(log: EventLog) -> None:
    told: asyncio.Queue[frozenset[int]] = asyncio.Queue()
    await log.subscribe(told.put)
    async with asyncio.timeout(30):
        while await told.get() != frozenset({0}):
            pass


async def test_a_dead_letter_stands_in_nobodys_way(log: EventLog) -> None:
    await append(log, 1)
    [record] = await log.read(0, 0, 100)
    await log.dead_letter(record, "for this test")
    await append(log, 2)
    assert ids_of(await log.read(0, record.offset, 100)) == ids(2)


async def test_a_closed_log_refuses(log: EventLog) -> None:
    await append(log, 1)
    await log.close()
    await log.close()
    with pytest.raises(UnavailableError):
        await append(log, 2)
