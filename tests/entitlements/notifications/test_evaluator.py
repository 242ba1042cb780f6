"""Checks become events, each once, whatever dies on the way."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from entitlements.notifications.evaluator import STEPS, Evaluator
from entitlements.notifications.model import EventType, ExpiringGrant, RuleSpec
from entitlements.notifications.options import NotificationOptions, Step, no_step
from entitlements.notifications.service import NotificationService
from entitlements.notifications.stores import checks
from entitlements.notifications.stores.checks import request_check, request_checks
from entitlements.notifications.stores.events import EventFilter
from entitlements.notifications.stores.paging import Sorting
from entitlements.notifications.stores.rejected import report_rejected
from entitlements.notifications.stores.tables import checks as checks_table
from entitlements.notifications.stores.tables import deliveries
from meterline.db.engine import Database
from tests.entitlements.notifications.build import (
    DAY,
    ENTITLEMENT,
    NOW,
    Crash,
    FakeReader,
    channel_and_rule,
    event_keys,
    threshold,
)
from tests.support.clock import FixedClock
from tests.support.database import migrated

OPTIONS = NotificationOptions()
THRESHOLD = EventType.BALANCE_THRESHOLD.value


class World:
    """One database, a fake store of usage, a clock, and processes that come and go."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.reader = FakeReader()
        self.clock = FixedClock(NOW)
        self.service = NotificationService(database, self.reader, self.clock)

    def evaluator(self, on_step: Step = no_step) -> Evaluator:
        return Evaluator(self.database, self.reader, self.clock, OPTIONS, on_step)

    async def watch(self, kind: EventType, *limits: Any, **spec: Any) -> str:
        made = RuleSpec(kind, "rule", (), thresholds=limits, **spec)
        return (await channel_and_rule(self.service, made))[1]

    async def use(self, amount: Any, entitlement_id: str = ENTITLEMENT) -> None:
        """Usage, told as the sink tells it."""
        self.reader.use(self.clock(), amount, entitlement_id)
        async with self.database.transaction() as conn:
            await request_check(conn, entitlement_id, self.clock())

    async def settle(self) -> None:
        """Make every check that is due."""
        while await self.evaluator().run_once():
            pass

    async def waiting(self) -> list[tuple[str, str]]:
        async with self.database.read() as conn:
            rows = await conn.execute(
                select(checks_table.c.entitlement_id, checks_table.c.reason).order_by(
                    checks_table.c.entitlement_id, checks_table.c.reason
                )
            )
            return [(row.entitlement_id, row.reason) for row in rows]


@pytest.fixture
def world(any_database: Database) -> World:
    return World(any_database)


async def test_thresholds_fire_once_a_period(world: World) -> None:
    await world.watch(
        EventType.BALANCE_THRESHOLD,
        threshold("usage_percentage", 50),
        threshold("balance_value", 10),
    )
    for amount in (40, 20, 35, 1):
        await world.use(amount)
        await world.settle()
        world.clock.advance(60)
    assert await event_keys(world.database) == [
        (THRESHOLD, "50 2026-03-01"),
        (THRESHOLD, "10 2026-03-01"),
    ]
    world.clock.advance(86_400)
    await world.use(95)
    await world.settle()
    assert len(await event_keys(world.database)) == 4


async def test_a_delivery_is_written_with_each_event(world: World) -> None:
    await world.watch(EventType.EXHAUSTED)
    await world.use(100)
    await world.settle()
    async with world.database.read() as conn:
        assert (await conn.execute(select(func.count()).select_from(deliveries))).scalar() == 1
    assert await event_keys(world.database) == [("entitlements.exhausted", "2026-03-01")]


async def test_the_payload(world: World) -> None:
    rule_id = await world.watch(
        EventType.BALANCE_THRESHOLD, threshold("usage_value", "0.000000000000000001")
    )
    world.reader.granted = Decimal("12345678901234567890.123456789012345678")
    await world.use("0.1")
    await world.settle()
    (event,) = (await world.service.list_events("default", EventFilter(), Sorting())).items
    assert event.rule.id == rule_id
    assert '"balance":12345678901234567890.023456789012345678' in event.payload
    assert '"threshold":{"type":"usage_value","value":0.000000000000000001}' in event.payload
    assert event.payload.startswith(
        f'{{"id":"{event.id}","type":"{THRESHOLD}","timestamp":"2026-03-01T12:00:00Z","data":{{'
    )


async def test_no_rule_no_check(world: World) -> None:
    await world.use(100)
    assert await world.waiting() == []
    # A rule that comes later looks at everything.
    await world.watch(EventType.EXHAUSTED)
    await world.settle()
    assert await event_keys(world.database) == [("entitlements.exhausted", "2026-03-01")]


async def test_every_period_that_began_while_the_server_was_down_is_told(world: World) -> None:
    await world.watch(EventType.RESET)
    await world.watch(EventType.BALANCE_THRESHOLD, threshold("usage_value", 50))
    await world.use(10)
    await world.settle()
    world.reader.use(NOW + DAY + timedelta(hours=1), 60)
    world.reader.use(NOW + 2 * DAY, 5)
    world.clock.advance(3 * 86_400)
    await world.use(1)
    await world.settle()
    assert sorted(await event_keys(world.database)) == [
        (THRESHOLD, "50 2026-03-02"),
        ("entitlements.reset", "2026-03-02"),
        ("entitlements.reset", "2026-03-03"),
        ("entitlements.reset", "2026-03-04"),
    ]


async def test_the_last_usage_of_a_period_is_seen_after_its_end(world: World) -> None:
    await world.watch(EventType.BALANCE_THRESHOLD, threshold("usage_value", 50))
    await world.use(10)
    await world.settle()
    midnight = NOW.replace(hour=0) + DAY
    world.clock.now = midnight + timedelta(milliseconds=1)
    await world.settle()
    assert await event_keys(world.database) == []
    # An event of the last second that the sink brings a moment too late.
    world.reader.use(midnight - timedelta(seconds=1), 60)
    world.clock.advance(1)
    async with world.database.transaction() as conn:
        await request_check(conn, ENTITLEMENT, world.clock())
    await world.settle()
    assert await event_keys(world.database) == [(THRESHOLD, "50 2026-03-01")]


async def test_a_reset_by_hand_starts_a_period(world: World) -> None:
    await world.watch(EventType.RESET)
    await world.watch(EventType.EXHAUSTED)
    await world.use(100)
    await world.settle()
    world.clock.advance(3_600)
    world.reader.resets.append(world.clock())
    await world.use(0)
    await world.settle()
    world.clock.advance(1)
    await world.use(100)
    await world.settle()
    assert [kind for kind, _ in await event_keys(world.database)] == [
        "entitlements.exhausted",
        "entitlements.reset",
        "entitlements.exhausted",
    ]


async def test_a_grant_that_expires_is_told_in_time(world: World) -> None:
    await world.watch(EventType.GRANTS_EXPIRING)
    expires_at = NOW + 10 * DAY
    world.reader.grants = [
        ExpiringGrant("01J5GRANT00000000000000000", Decimal(5), NOW - DAY, expires_at)
    ]
    await world.use(1)
    await world.settle()
    assert await event_keys(world.database) == []
    for _ in range(12):
        world.clock.advance(86_400)
        await world.settle()
    (event,) = (await world.service.list_events("default", EventFilter(), Sorting())).items
    assert event.type is EventType.GRANTS_EXPIRING
    assert '"timestamp":"2026-03-04T12:00:00Z"' in event.payload


async def test_an_entitlement_that_ended_is_looked_at_no_more(world: World) -> None:
    await world.watch(EventType.RESET)
    await world.use(1)
    await world.settle()
    assert await world.waiting() == [(ENTITLEMENT, "look"), (ENTITLEMENT, "period")]
    del world.reader.used[ENTITLEMENT]
    async with world.database.transaction() as conn:
        await request_check(conn, ENTITLEMENT, world.clock())
    await world.settle()
    assert await world.waiting() == []


async def test_a_rule_that_was_off_starts_anew(world: World) -> None:
    """The period changed while nobody watched: that is no reset to tell of now."""
    rule_id = await world.watch(EventType.RESET)
    await world.use(1)
    await world.settle()
    spec = (await world.service.get_rule("default", rule_id)).spec
    off = RuleSpec(spec.type, spec.name, spec.channels, disabled=True)
    await world.service.update_rule("default", rule_id, off)
    world.clock.advance(30 * 86_400)
    await world.settle()
    await world.service.update_rule("default", rule_id, spec)
    await world.settle()
    assert await event_keys(world.database) == []
    world.clock.advance(86_400)
    await world.settle()
    assert await event_keys(world.database) == [("entitlements.reset", "2026-04-01")]


async def test_namespaces_do_not_see_each_other(world: World) -> None:
    other = "01J5ENT0000000000000000001"
    world.reader.spaces[other] = "other"
    await world.watch(EventType.EXHAUSTED)
    await world.use(100, other)
    await world.settle()
    assert await event_keys(world.database) == []
    await channel_and_rule(
        world.service, RuleSpec(EventType.EXHAUSTED, "rule", ()), namespace="other"
    )
    await world.settle()
    assert len(await event_keys(world.database)) == 1
    assert not (await world.service.list_events("default", EventFilter(), Sorting())).items


async def test_a_change_during_a_check_is_checked_again(world: World) -> None:
    await world.watch(EventType.EXHAUSTED)
    await world.settle()
    await world.use(50)

    async def meanwhile(step: str) -> None:
        if step == "read" and len(world.reader.used[ENTITLEMENT]) == 1:
            await world.use(50)

    await world.evaluator(meanwhile).run_once()
    assert await event_keys(world.database) == []
    await world.settle()
    assert len(await event_keys(world.database)) == 1


async def test_a_store_that_fails_costs_time_and_no_event(world: World) -> None:
    await world.watch(EventType.EXHAUSTED)
    await world.settle()
    await world.use(100)
    world.reader.broken = True
    assert await world.evaluator().run_once()
    world.reader.broken = False
    assert not await world.evaluator().run_once()
    world.clock.advance(OPTIONS.lease.total_seconds() + 1)
    await world.settle()
    assert len(await event_keys(world.database)) == 1


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("skip", range(4))
async def test_a_crash_loses_and_doubles_nothing(world: World, step: str, skip: int) -> None:
    await world.watch(
        EventType.BALANCE_THRESHOLD, threshold("usage_value", 50), threshold("usage_value", 80)
    )
    await world.watch(EventType.RESET)
    await world.use(60)
    left = skip

    async def dying(name: str) -> None:
        nonlocal left
        if name == step:
            left -= 1
            if left < 0:
                raise Crash

    process = world.evaluator(dying)
    try:
        for _ in range(3):
            while await process.run_once():
                pass
            world.clock.advance(86_400)
            await world.use(90)
    except Crash:
        pass
    world.clock.now = max(world.clock.now, NOW + 3 * DAY)
    if len(world.reader.used[ENTITLEMENT]) < 4:
        for day in range(len(world.reader.used[ENTITLEMENT]), 4):
            world.reader.use(NOW + day * DAY, 90)
    world.clock.advance(OPTIONS.lease.total_seconds() + 1)
    async with world.database.transaction() as conn:
        await request_check(conn, ENTITLEMENT, world.clock())
    await world.settle()
    days = ["2026-03-02", "2026-03-03", "2026-03-04"]
    expected = [(THRESHOLD, "50 2026-03-01")]
    expected += [(THRESHOLD, f"{limit} {day}") for limit in (50, 80) for day in days]
    expected += [("entitlements.reset", day) for day in days]
    assert sorted(await event_keys(world.database)) == sorted(expected)


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 400)), min_size=1, max_size=8))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_what_fires_does_not_depend_on_when_it_is_looked_at(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
) -> None:
    """Looking after each change or once at the end of all: the same events, each once."""
    found = []
    for eager in (True, False):
        async with migrated(tmp_path_factory.mktemp("db")) as database:
            world = World(database)
            await world.watch(
                EventType.BALANCE_THRESHOLD,
                threshold("usage_value", 50),
                threshold("usage_percentage", 90),
                threshold("balance_value", 20),
            )
            await world.watch(EventType.EXHAUSTED)
            await world.use(0)
            await world.settle()
            for amount, minutes in steps:
                world.clock.advance(60 * minutes)
                await world.use(amount)
                if eager:
                    await world.settle()
            await world.settle()
            found.append(sorted(await event_keys(database)))
            assert len(set(found[-1])) == len(found[-1])
    assert found[0] == found[1]


async def test_two_processes_share_the_work(world: World) -> None:
    await world.watch(EventType.EXHAUSTED)
    ids = [f"01J5ENT00000000000000000{number:02}" for number in range(20)]
    for one in ids:
        world.reader.use(world.clock(), 100, one)
    async with world.database.transaction() as conn:
        await request_checks(conn, ids, world.clock())
    first, second = world.evaluator(), world.evaluator()
    for _ in range(3):
        await asyncio.gather(first.run_once(), second.run_once())
    assert len(await event_keys(world.database)) == 20


async def test_rejected_events_are_counted_and_told_together(world: World) -> None:
    async with world.database.transaction() as conn:
        await report_rejected(conn, "default", {"too early": 5}, world.clock())
    await world.watch(EventType.EVENTS_REJECTED)
    for _ in range(3):
        async with world.database.transaction() as conn:
            reasons = {"value cannot be null": 2, "r" * 500: 1}
            await report_rejected(conn, "default", reasons, world.clock())
            await report_rejected(conn, "other", reasons, world.clock())
        world.clock.advance(10)
    await world.settle()
    assert await event_keys(world.database) == []
    world.clock.advance(60)
    await world.settle()
    await world.settle()
    (event,) = (await world.service.list_events("default", EventFilter(), Sorting())).items
    assert '"count":9,"reasons":[{"reason":"value cannot be null","count":6}' in event.payload


async def test_reasons_are_bounded(world: World) -> None:
    await world.watch(EventType.EVENTS_REJECTED)
    async with world.database.transaction() as conn:
        for number in range(100):
            await report_rejected(conn, "default", {f"reason {number}": 1}, world.clock())
    world.clock.advance(61)
    await world.settle()
    (event,) = (await world.service.list_events("default", EventFilter(), Sorting())).items
    assert '"count":100' in event.payload
    assert '{"reason":"other reasons","count":50}' in event.payload


async def test_keys_that_cannot_come_again_are_forgotten(world: World) -> None:
    await world.watch(EventType.EXHAUSTED)
    await world.use(100)
    await world.settle()
    async with world.database.transaction() as conn:
        assert await checks.forget_fired(conn, world.clock() + DAY) == 0
        assert await checks.forget_fired(conn, world.clock() + 3 * DAY) == 1
