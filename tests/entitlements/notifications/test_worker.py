"""The worker as a server runs it: from a change to the receiver, and through its stops."""

from pathlib import Path

import pytest

from entitlements.notifications.model import DeliveryState, EventType, RuleSpec
from entitlements.notifications.options import NotificationOptions
from entitlements.notifications.sender import HttpSender
from entitlements.notifications.service import NotificationService
from entitlements.notifications.stores.checks import request_check
from entitlements.notifications.stores.events import EventFilter
from entitlements.notifications.stores.paging import Sorting
from entitlements.notifications.worker import NotificationWorker
from meterline.db.engine import Database
from meterline.kernel.clock import system_clock
from tests.entitlements.notifications.build import ENTITLEMENT, FakeReader, channel_and_rule
from tests.entitlements.notifications.receiver import receiving, reply
from tests.support.database import migrated

OPTIONS = NotificationOptions(poll_seconds=0.02)


def worker_of(database: Database, reader: FakeReader, sender: HttpSender) -> NotificationWorker:
    return NotificationWorker(database, reader, sender, system_clock, OPTIONS)


async def test_a_change_reaches_the_receiver(any_database: Database) -> None:
    database = any_database
    async with receiving() as receiver:
        reader, sender = FakeReader(), HttpSender(allow_private=True)
        worker = worker_of(database, reader, sender)
        service = NotificationService(
            database, reader, system_clock, allow_private=True, wake=worker.wake
        )
        worker.start()
        spec = RuleSpec(EventType.EXHAUSTED, "rule", ())
        await channel_and_rule(service, spec, url=f"{receiver.url}/in")
        reader.use(system_clock(), 100)
        async with database.transaction() as conn:
            await request_check(conn, ENTITLEMENT, system_clock())
        await receiver.expect(1)
        await worker.stop()
        await sender.close()
        (event,) = (await service.list_events("default", EventFilter(), Sorting())).items
        assert receiver.got[0][2].decode() == event.payload
        assert event.deliveries[0].state in (DeliveryState.SUCCESS, DeliveryState.PENDING)


async def test_a_failing_store_does_not_stop_the_worker(
    any_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = any_database
    async with receiving() as receiver:
        receiver.respond = lambda _path: reply(200)
        reader, sender = FakeReader(), HttpSender(allow_private=True)
        worker = worker_of(database, reader, sender)
        service = NotificationService(
            database, reader, system_clock, allow_private=True, wake=worker.wake
        )
        left = 3
        read = Database.read

        def failing(self: Database) -> object:
            nonlocal left
            left -= 1
            if left >= 0:
                raise RuntimeError("the database does not answer")
            return read(self)

        spec = RuleSpec(EventType.EXHAUSTED, "rule", ())
        _, rule_id = await channel_and_rule(service, spec, url=receiver.url)
        with monkeypatch.context() as patch:
            patch.setattr(Database, "read", failing)
            worker.start()
            await service.test_rule("default", rule_id)
            await receiver.expect(1)
        await worker.stop()
        await sender.close()


async def test_stopping_what_never_started(tmp_path: Path) -> None:
    async with migrated(tmp_path) as database:
        sender = HttpSender()
        await worker_of(database, FakeReader(), sender).stop()
        await sender.close()
