"""What the logs that keep batches promise beyond the contract: offsets, trimming, skipping."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from meterline.eventlog.memory import MemoryLog
from meterline.eventlog.port import EventLog, Record
from meterline.eventlog.sqlite import SqliteLog
from meterline.kernel.errors import UnavailableError

NOW = datetime(2026, 11, 20, 10, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(params=["memory", "sqlite"])
async def log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventLog]:
    log: EventLog = MemoryLog() if request.param == "memory" else SqliteLog(tmp_path / "log")
    yield log
    await log.close()


async def append(log: EventLog, number: int, count: int = 1) -> int:
    offset = await log.append("default", NOW, count, b'[{"id":"%d"}]' % number)
    assert offset is not None
    return offset


async def test_a_new_log_is_empty(log: EventLog) -> None:
    assert log.partition_count() == 1
    assert await log.end(0) == 0
    assert await log.ends() == {0: 0}
    assert await log.read(0, 0, 100) == []


async def test_a_record_comes_back_as_it_was_appended(log: EventLog) -> None:
    events = ('[{"id":"' + "é" * 5000 + '"}]').encode()
    offset = await log.append("tenant-é", NOW, 7, events)
    assert offset is not None
    assert await log.read(0, 0, 100) == [Record(0, offset, "tenant-é", NOW, 7, events)]
    assert await log.end(0) == offset
    assert await log.ends() == {0: offset}


async def test_a_reader_is_told_its_partitions_at_once(log: EventLog) -> None:
    told: list[frozenset[int]] = []

    async def changed(partitions: frozenset[int]) -> None:
        told.append(partitions)

    await log.subscribe(changed)
    assert told == [frozenset({0})]


async def test_offsets_are_positive_and_grow_in_the_order_of_completion(log: EventLog) -> None:
    offsets = [await append(log, number) for number in range(20)]
    assert offsets[0] > 0
    assert offsets == sorted(set(offsets))


async def test_parallel_appends_each_get_their_own_offset_and_content(log: EventLog) -> None:
    offsets = await asyncio.gather(*(append(log, number) for number in range(500)))
    assert len(set(offsets)) == 500
    found = {record.offset: record.events for record in await log.read(0, 0, 10_000)}
    assert found == {offset: b'[{"id":"%d"}]' % number for number, offset in enumerate(offsets)}


async def test_reading_goes_on_after_an_offset_in_ascending_order(log: EventLog) -> None:
    offsets = await asyncio.gather(*(append(log, number) for number in range(50)))
    seen: list[int] = []
    after = 0
    while records := await log.read(0, after, 7):
        assert len(records) <= 7
        seen += [record.offset for record in records]
        after = seen[-1]
    assert seen == sorted(offsets)


async def test_a_read_gives_one_record_at_least_and_then_keeps_to_the_limit(log: EventLog) -> None:
    for number in range(5):
        await append(log, number, count=10)
    assert [record.count for record in await log.read(0, 0, 1)] == [10]
    assert len(await log.read(0, 0, 30)) == 3
    assert len(await log.read(0, 0, 39)) == 3


async def test_the_events_after_an_offset_are_counted(log: EventLog) -> None:
    offsets = [await append(log, number, count=10 + number) for number in range(3)]
    assert await log.count(0, 0) == 33
    assert await log.count(0, offsets[0]) == 23
    assert await log.count(0, offsets[2]) == 0
    await log.trim(0, offsets[1])
    assert await log.count(0, 0) == 12


async def test_waiting_ends_when_a_record_is_appended(log: EventLog) -> None:
    waiting = asyncio.create_task(log.wait(0, 0, 30))
    await asyncio.sleep(0)
    offset = await append(log, 1)
    assert await waiting is True
    assert await log.wait(0, 0, 0) is True
    assert await log.wait(0, offset, 0.01) is False
    assert [record.offset for record in await log.read(0, 0, 1)] == [offset]


async def test_many_may_wait(log: EventLog) -> None:
    waiting = [asyncio.create_task(log.wait(0, 0, 30)) for _ in range(5)]
    await asyncio.sleep(0)
    await append(log, 1)
    assert await asyncio.gather(*waiting) == [True] * 5


async def test_trimmed_records_are_gone_and_their_offsets_are_not_reused(log: EventLog) -> None:
    offsets = [await append(log, number) for number in range(10)]
    await log.trim(0, offsets[4])
    assert [record.offset for record in await log.read(0, 0, 100)] == offsets[5:]
    await log.trim(0, offsets[2])
    assert [record.offset for record in await log.read(0, 0, 100)] == offsets[5:]
    await log.trim(0, offsets[-1] + 1000)
    assert await log.read(0, 0, 100) == []
    assert await log.end(0) == offsets[-1]
    later = await append(log, 11)
    assert later > offsets[-1]
    assert [record.offset for record in await log.read(0, 0, 100)] == [later]


async def test_skipped_offsets_are_not_given_out(log: EventLog) -> None:
    before = await append(log, 1)
    await log.skip(0, before + 500)
    assert await log.read(0, 0, 100) == []
    assert await log.end(0) == before + 500
    later = await append(log, 2)
    assert later > before + 500
    await log.skip(0, 3)
    assert [record.offset for record in await log.read(0, 0, 100)] == [later]


async def test_a_trim_within_a_parallel_burst_keeps_exactly_the_rest(log: EventLog) -> None:
    offsets = sorted(await asyncio.gather(*(append(log, number) for number in range(100))))
    await log.trim(0, offsets[41])
    assert [record.offset for record in await log.read(0, 0, 1000)] == offsets[42:]


async def test_instants_keep_their_microseconds(log: EventLog) -> None:
    instants = [NOW, NOW + timedelta(microseconds=1), datetime(1969, 12, 31, 23, 59, tzinfo=UTC)]
    for instant in instants:
        await log.append("default", instant, 1, b"[{}]")
    assert [record.ingested_at for record in await log.read(0, 0, 100)] == instants


async def test_a_closed_log_refuses(log: EventLog) -> None:
    await append(log, 1)
    await log.close()
    await log.close()
    with pytest.raises(UnavailableError):
        await append(log, 2)
