"""Deliveries: retried by the schedule, never lost, never too many at once."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook

from entitlements.notifications.courier import STEPS, Courier
from entitlements.notifications.firing import value_data
from entitlements.notifications.model import (
    Delivery,
    DeliveryState,
    Event,
    EventType,
    RuleSpec,
)
from entitlements.notifications.options import NotificationOptions, Step, no_step
from entitlements.notifications.payload import payload
from entitlements.notifications.schedule import ATTEMPTS, Answer
from entitlements.notifications.service import ChannelSpec, NotificationService
from entitlements.notifications.stores import outbox
from entitlements.notifications.stores.events import EventFilter
from entitlements.notifications.stores.paging import Sorting
from meterline.db.engine import Database
from meterline.kernel.clock import system_clock
from tests.entitlements.notifications.build import (
    DAY,
    NOW,
    URL,
    Crash,
    FakeReader,
    FakeSender,
    channel_and_rule,
    value,
)
from tests.support.clock import FixedClock

RULE = RuleSpec(EventType.EXHAUSTED, "rule", ())


class World:
    """One database, a sender that answers as told, and couriers that come and go."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = FixedClock(NOW)
        self.sender = FakeSender()
        self.service = NotificationService(database, FakeReader(), self.clock)
        self.options = NotificationOptions(concurrency=8, endpoint_concurrency=2)

    def courier(self, on_step: Step = no_step, sender: Any = None) -> Courier:
        return Courier(self.database, sender or self.sender, self.clock, self.options, on_step)

    async def send(self) -> None:
        """Send everything that is due now."""
        courier = self.courier()
        while await courier.run_once():
            await courier.landed()

    async def event(self, **spec: Any) -> Event:
        _, rule_id = await channel_and_rule(self.service, RULE, **spec)
        return await self.service.test_rule(spec.get("namespace", "default"), rule_id)

    async def delivery(self, event: Event) -> Delivery:
        (found,) = (await self.service.get_event(event.namespace, event.id)).deliveries
        return found

    def answers(self, status: int | None, retry_after: str | None = None) -> None:
        self.sender.answer = lambda _url: Answer(status, "text", 3, retry_after)


@pytest.fixture
def world(any_database: Database) -> World:
    return World(any_database)


async def test_an_event_arrives(world: World) -> None:
    world.clock.now = system_clock()
    event = await world.event()
    assert (await world.delivery(event)).state is DeliveryState.PENDING
    await world.send()
    delivery = await world.delivery(event)
    assert (delivery.state, delivery.next_attempt_at) == (DeliveryState.SUCCESS, None)
    assert [one.status for one in delivery.attempts] == [200]
    ((url, headers, body),) = world.sender.sent
    channel = await world.service.get_channel("default", delivery.channel_id)
    seen = Webhook(channel.secret).verify(body, headers)
    assert (url, headers["webhook-id"], body.decode()) == (URL, event.id, event.payload)
    assert (seen["type"], set(seen)) == (event.type, {"id", "type", "timestamp", "data"})
    assert headers["content-type"] == "application/json"


async def test_the_schedule(world: World) -> None:
    """Ten attempts over three days, each with the same id and body and a new timestamp."""
    event = await world.event()
    world.answers(500)
    waits = []
    for _ in range(ATTEMPTS):
        await world.send()
        delivery = await world.delivery(event)
        if delivery.next_attempt_at is None:
            break
        assert delivery.state is DeliveryState.SENDING
        wait = delivery.next_attempt_at - world.clock.now
        waits.append(wait.total_seconds())
        world.clock.now = delivery.next_attempt_at - timedelta(microseconds=1)
        await world.send()
        world.clock.now = delivery.next_attempt_at
    planned = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert all(one <= wait <= 1.1 * one for wait, one in zip(waits, planned, strict=True))
    delivery = await world.delivery(event)
    assert (delivery.state, len(delivery.attempts)) == (DeliveryState.FAILED, ATTEMPTS)
    assert len({headers["webhook-id"] for _, headers, _ in world.sender.sent}) == 1
    assert len({body for _, _, body in world.sender.sent}) == 1
    assert len({headers["webhook-timestamp"] for _, headers, _ in world.sender.sent}) == ATTEMPTS
    world.clock.advance(10 * 86_400)
    await world.send()
    assert len(world.sender.sent) == ATTEMPTS


async def test_a_failure_is_made_good(world: World) -> None:
    event = await world.event()
    world.answers(None)
    await world.send()
    assert (await world.delivery(event)).reason == "text"
    world.answers(204)
    world.clock.advance(6)
    await world.send()
    delivery = await world.delivery(event)
    assert (delivery.state, delivery.reason) == (DeliveryState.SUCCESS, "")
    assert [one.state for one in delivery.attempts] == [DeliveryState.SUCCESS, DeliveryState.FAILED]


async def test_throttling_pauses_everything_to_that_channel(world: World) -> None:
    channel_id, rule_id = await channel_and_rule(world.service, RULE)
    world.answers(429, "60")
    await world.service.test_rule("default", rule_id)
    await world.send()
    await world.service.test_rule("default", rule_id)
    other = await world.event(url="https://other.example.com/")
    world.answers(200)
    await world.send()
    assert [url for url, _, _ in world.sender.sent] == [URL, "https://other.example.com/"]
    assert (await world.delivery(other)).state is DeliveryState.SUCCESS
    world.clock.advance(60)
    await world.send()
    assert len(world.sender.sent) == 4
    assert channel_id


async def test_gone_disables_the_channel(world: World) -> None:
    channel_id, rule_id = await channel_and_rule(world.service, RULE)
    first = await world.service.test_rule("default", rule_id)
    world.answers(500)
    await world.send()
    second = await world.service.test_rule("default", rule_id)
    world.answers(410)
    await world.send()
    channel = await world.service.get_channel("default", channel_id)
    assert channel.disabled
    assert "410" in (channel.disabled_reason or "")
    for event in (first, second):
        assert (await world.delivery(event)).state is DeliveryState.FAILED
    sent = len(world.sender.sent)
    third = await world.service.test_rule("default", rule_id)
    world.clock.advance(86_400)
    await world.send()
    assert (len(world.sender.sent), (await world.delivery(third)).state) == (
        sent,
        DeliveryState.FAILED,
    )
    # Enabled again, it can be sent again.
    await world.service.update_channel("default", channel_id, ChannelSpec("hook", URL))
    world.answers(200)
    await world.service.resend("default", third.id)
    await world.send()
    assert (await world.delivery(third)).state is DeliveryState.SUCCESS
    assert not (await world.service.get_channel("default", channel_id)).disabled


async def test_a_channel_that_only_fails_for_days_is_disabled(world: World) -> None:
    channel_id, rule_id = await channel_and_rule(world.service, RULE)
    world.answers(500)
    for _ in range(4):
        await world.service.test_rule("default", rule_id)
        await world.send()
        world.clock.advance(86_400)
    world.answers(200)
    await world.send()
    world.answers(500)
    for _ in range(5):
        await world.service.test_rule("default", rule_id)
        await world.send()
        assert not (await world.service.get_channel("default", channel_id)).disabled
        world.clock.advance(86_400)
    await world.service.test_rule("default", rule_id)
    await world.send()
    channel = await world.service.get_channel("default", channel_id)
    assert (channel.disabled, channel.updated_at) == (True, world.clock.now)


async def test_resending(world: World) -> None:
    event = await world.event()
    await world.send()
    await world.service.resend("default", event.id)
    assert (await world.delivery(event)).state is DeliveryState.RESENDING
    world.clock.advance(1)
    await world.send()
    delivery = await world.delivery(event)
    assert (delivery.state, len(delivery.attempts)) == (DeliveryState.SUCCESS, 2)
    assert len({headers["webhook-id"] for _, headers, _ in world.sender.sent}) == 1


class SlowSender(FakeSender):
    """Holds everything until it is let go, and counts what is held."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.held: list[str] = []

    async def send(self, url: str, headers: Any, body: bytes) -> Answer:
        self.held.append(url)
        await self.go.wait()
        return await super().send(url, headers, body)


async def test_concurrency_is_bounded_for_each_endpoint_and_in_all(world: World) -> None:
    rule_ids = []
    for number in range(6):
        url = f"https://hooks{number}.example.com/"
        rule_ids.append((await channel_and_rule(world.service, RULE, url=url))[1])
    for rule_id in rule_ids:
        for _ in range(5):
            await world.service.test_rule("default", rule_id)
            world.clock.advance(0.001)
    sender = SlowSender()
    courier = world.courier(sender=sender)
    while await courier.run_once():
        pass
    await asyncio.sleep(0)
    assert len(sender.held) == 8
    assert max(sender.held.count(url) for url in sender.held) == 2
    # One slow endpoint leaves room for others: the oldest of all does not take every place.
    assert len(set(sender.held)) == 4
    sender.go.set()
    while await courier.run_once() or courier._flying:
        await courier.landed()
    assert len(sender.sent) == 30


async def test_two_couriers_send_each_once(world: World) -> None:
    _, rule_id = await channel_and_rule(world.service, RULE)
    for _ in range(6):
        await world.service.test_rule("default", rule_id)
    couriers = [world.courier(), world.courier()]
    for _ in range(10):
        await asyncio.gather(*(one.run_once() for one in couriers))
        for one in couriers:
            await one.landed()
    assert len({headers["webhook-id"] for _, headers, _ in world.sender.sent}) == 6
    assert len(world.sender.sent) == 6


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_loses_no_delivery(world: World, step: str) -> None:
    event = await world.event()

    async def dying(name: str) -> None:
        if name == step:
            raise Crash

    courier = world.courier(dying)
    try:
        await courier.run_once()
        for task in list(courier._flying):
            await task
    except Crash:
        await asyncio.gather(*courier._flying, return_exceptions=True)
    world.clock.advance(world.options.lease.total_seconds() + 1)
    await world.send()
    assert (await world.delivery(event)).state is DeliveryState.SUCCESS
    assert len({headers["webhook-id"] for _, headers, _ in world.sender.sent}) == 1
    assert len(world.sender.sent) <= 2


async def test_an_answer_that_comes_after_the_lease_changes_nothing(world: World) -> None:
    event = await world.event()
    sender = SlowSender()
    late = world.courier(sender=sender)
    await late.run_once()
    world.clock.advance(world.options.lease.total_seconds() + 1)
    await world.send()
    sender.answer = lambda _url: Answer(500, "late", 1)
    sender.go.set()
    await late.landed()
    delivery = await world.delivery(event)
    assert delivery.state is DeliveryState.SUCCESS
    assert len(delivery.attempts) == 2


async def test_stopping_waits_a_little_and_then_leaves_it_to_the_next(world: World) -> None:
    event = await world.event()
    sender = SlowSender()
    courier = world.courier(sender=sender)
    await courier.run_once()
    await courier.stop(0.01)
    assert sender.sent == []
    world.clock.advance(world.options.lease.total_seconds() + 1)
    await world.send()
    assert (await world.delivery(event)).state is DeliveryState.SUCCESS


async def test_own_headers_cannot_replace_ours(world: World) -> None:
    channel_id, rule_id = await channel_and_rule(world.service, RULE)
    spec = ChannelSpec("hook", URL, headers={"Authorization": "Bearer x", "X-A": "b"})
    await world.service.update_channel("default", channel_id, spec)
    await world.service.test_rule("default", rule_id)
    await world.send()
    ((_, headers, _),) = world.sender.sent
    assert (headers["Authorization"], headers["X-A"]) == ("Bearer x", "b")
    names = [name.lower() for name in headers]
    assert len(names) == len(set(names))


async def test_a_replaced_secret_still_signs_for_a_day(world: World) -> None:
    world.clock.now = system_clock()
    channel_id, rule_id = await channel_and_rule(world.service, RULE)
    old = (await world.service.get_channel("default", channel_id)).secret
    new = "whsec_" + "c2VjcmV0" * 5
    await world.service.update_channel("default", channel_id, ChannelSpec("hook", URL, secret=new))
    await world.service.test_rule("default", rule_id)
    await world.send()
    ((_, headers, body),) = world.sender.sent
    for secret in (old, new):
        Webhook(secret).verify(body, headers)
    world.clock.advance(86_401)
    await world.service.test_rule("default", rule_id)
    await world.send()
    assert " " in headers["webhook-signature"]
    assert " " not in world.sender.sent[-1][1]["webhook-signature"]


async def test_old_events_are_forgotten_unless_they_are_on_their_way(world: World) -> None:
    done = await world.event()
    await world.send()
    world.answers(500)
    waiting = await world.event()
    await world.send()
    async with world.database.transaction() as conn:
        assert await outbox.forget(conn, NOW - DAY) == 0
        assert await outbox.forget(conn, NOW + DAY) == 1
    found = (await world.service.list_events("default", EventFilter(), Sorting())).items
    assert [one.id for one in found] == [waiting.id] != [done.id]


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_payload_stays_below_twenty_kilobytes(size: int) -> None:
    data = value_data(value(5))
    big = {key: {**part, "metadata": {"k": "x" * size}} for key, part in data.items()}
    big["entitlement"]["unheard"] = "y" * size
    text = payload("01J5", EventType.RESET, NOW, big)
    assert len(text.encode()) <= 20_000
    seen = json.loads(text)
    assert seen["data"]["entitlement"]["id"]
    assert ("metadata" in seen["data"]["feature"]) is (size == 10)
