"""Several API processes on one PostgreSQL: each check is made, and each message sent, once."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from sqlalchemy import text

from entitlements.notifications.courier import Courier
from entitlements.notifications.evaluator import Evaluator
from entitlements.notifications.model import EventType, RuleSpec
from entitlements.notifications.options import NotificationOptions
from entitlements.notifications.service import NotificationService
from entitlements.notifications.stores.checks import request_check, request_checks
from meterline.db import mutex
from meterline.db.engine import Database
from tests.entitlements.notifications.build import (
    ENTITLEMENT,
    NOW,
    FakeReader,
    FakeSender,
    channel_and_rule,
    event_keys,
    threshold,
)
from tests.support.clock import FixedClock
from tests.support.database import opened

PROCESSES = 3
ENTITLEMENTS = [f"01J5ENT000000000000000{number:04}" for number in range(40)]


class World:
    """Databases are one for each process; all are the same."""

    def __init__(self, databases: list[Database]) -> None:
        self.databases = databases
        self.clock = FixedClock(NOW)
        self.reader = FakeReader()
        self.sender = FakeSender()
        self.options = NotificationOptions()
        self.service = NotificationService(databases[0], self.reader, self.clock)
        self.chance = random.Random(1)

    def evaluator(self, database: Database) -> Evaluator:
        return Evaluator(database, self.reader, self.clock, self.options)

    async def watch(self) -> None:
        limits = (threshold("usage_value", 50), threshold("usage_value", 80))
        spec = RuleSpec(EventType.BALANCE_THRESHOLD, "rule", (), thresholds=limits)
        await channel_and_rule(self.service, spec)

    async def use(self, database: Database) -> None:
        """As a sink tells of usage: of many entitlements in one transaction."""
        for _ in range(12):
            some = self.chance.sample(ENTITLEMENTS, 12)
            async with database.transaction() as conn:
                await request_checks(conn, some, self.clock())
                for one in some:
                    self.reader.use(self.clock(), 9, one)
            await asyncio.sleep(self.chance.random() / 100)

    async def work(self, database: Database, ended: asyncio.Event) -> None:
        evaluator = self.evaluator(database)
        courier = Courier(database, self.sender, self.clock, self.options)
        while True:
            last = ended.is_set()
            busy = await evaluator.run_once()
            busy = await courier.run_once() or busy
            await courier.landed()
            if last and not busy:
                return
            await asyncio.sleep(0)


@pytest.fixture
async def world(postgres_url: str) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World([await stack.enter_async_context(opened(postgres_url)) for _ in range(3)])


async def test_each_piece_of_work_is_done_once(world: World) -> None:
    await world.watch()
    ended = asyncio.Event()
    workers = [asyncio.create_task(world.work(one, ended)) for one in world.databases]
    await asyncio.gather(*(world.use(one) for one in world.databases))
    ended.set()
    await asyncio.gather(*workers)
    await world.work(world.databases[0], ended)
    used = {one: sum(amount for _, amount in world.reader.used[one]) for one in ENTITLEMENTS}
    crossed = sum((amount >= 50) + (amount >= 80) for amount in used.values())
    assert crossed > 20
    assert len(await event_keys(world.databases[0])) == crossed
    sent = Counter(headers["webhook-id"] for _, headers, _ in world.sender.sent)
    assert len(sent) == crossed
    assert set(sent.values()) == {1}


async def _change_while_a_rule_is_made(world: World) -> int:
    """A balance changes in a transaction that began before the rule; answers the events."""
    one, other = world.databases[:2]
    world.reader.used[ENTITLEMENT] = []
    async with one.transaction() as conn:
        await request_check(conn, ENTITLEMENT, world.clock())
        making = asyncio.create_task(world.watch())
        while not making.done() and not await _somebody_waits(other):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while await world.evaluator(other).run_once():
            pass
        world.reader.use(world.clock(), 60)
    await making
    while await world.evaluator(other).run_once():
        pass
    return len(await event_keys(one))


async def _somebody_waits(database: Database) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with database.read() as conn:
        return bool((await conn.execute(text(query))).scalar_one())


async def test_a_rule_misses_no_change_that_is_under_way(world: World) -> None:
    assert await _change_while_a_rule_is_made(world) == 1


async def test_a_rule_that_waits_for_no_change_misses_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(mutex, "beside", nothing)
    assert await _change_while_a_rule_is_made(world) == 0
