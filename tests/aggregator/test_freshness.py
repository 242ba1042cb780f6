"""How far the store is, while the log may be away."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta

import pytest

from aggregator.freshness import Freshness
from aggregator.stores import state
from meterline.db.engine import Database
from meterline.kernel.errors import UnavailableError
from tests.support.clock import FixedClock


class Log:
    """Says where it ends, unless it is away or frozen."""

    def __init__(self) -> None:
        self.found: Mapping[int, int] | None = {0: 5, 1: 7}
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.asked = 0

    async def ends(self) -> Mapping[int, int]:
        self.asked += 1
        await self.thawed.wait()
        if self.found is None:
            raise UnavailableError("the broker is away")
        return self.found


async def place(database: Database, part: int, position: int, through: timedelta) -> None:
    async with database.transaction() as conn:
        await conn.execute(
            state.sink_partitions.insert().values(
                part=part,
                position=position,
                epoch=1,
                owner="test",
                through_at=FixedClock().now + through,
            )
        )


@pytest.fixture
async def log(any_database: Database) -> Log:
    await place(any_database, 0, 5, timedelta(minutes=-10))
    await place(any_database, 1, 6, timedelta(minutes=-3))
    return Log()


async def test_a_partition_that_is_behind_says_how_far(log: Log, any_database: Database) -> None:
    clock = FixedClock()
    freshness = Freshness(any_database, log, clock)
    assert await freshness.visible_until() == clock.now - timedelta(minutes=3)
    log.found = {0: 5, 1: 6}
    clock.advance(1)
    assert await freshness.visible_until() == clock.now


async def test_without_the_log_it_answers_from_what_is_known(
    log: Log, any_database: Database
) -> None:
    clock = FixedClock()
    freshness = Freshness(any_database, log, clock)
    log.found = {0: 5, 1: 6}
    seen = await freshness.visible_until()
    log.found = None
    clock.advance(60)
    assert await freshness.visible_until() == seen
    fresh = Freshness(any_database, log, clock)
    assert await fresh.visible_until() == FixedClock().now - timedelta(minutes=10)
    with pytest.raises(UnavailableError):
        await freshness.wait_visible(1)


async def test_a_frozen_log_is_asked_once_and_keeps_nobody_waiting(
    log: Log, any_database: Database
) -> None:
    clock = FixedClock()
    freshness = Freshness(any_database, log, clock)
    log.thawed.clear()
    for _ in range(3):
        assert await freshness.visible_until() == FixedClock().now - timedelta(minutes=10)
        clock.advance(1)
    assert log.asked == 1
    log.found = {0: 5, 1: 6}
    log.thawed.set()
    assert await freshness.visible_until() == clock.now
