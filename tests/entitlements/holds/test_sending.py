"""What becomes of the events of confirmed holds that wait for the sink."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

from sqlalchemy import text

from entitlements.events import UsageEvent
from entitlements.holds.limits import HoldLimits
from entitlements.holds.model import Place
from entitlements.holds.service import HoldRequest, accepted
from meterline.db.engine import Database
from tests.support.holding import NAMESPACE, Holding, holding

PLACE = Place(NAMESPACE, "ann", "tokens")


async def _confirmed(on: Holding, hold_id: str) -> None:
    await on.entitle()
    await on.grant(100)
    await on.holds.request(HoldRequest(PLACE, Decimal(1), hold_id))
    await on.holds.confirm(NAMESPACE, hold_id, place=PLACE)
    await on.holds.sender.flush()


async def _waiting(on: Holding) -> int:
    async with on.database.read() as conn:
        found = await conn.scalar(text("SELECT count(*) FROM holds WHERE outbox IS NOT NULL"))
    return int(found)


async def test_an_event_that_nobody_counts_is_noted_and_not_written_again(
    any_database: Database,
) -> None:
    async with holding(any_database, limits=HoldLimits(resend_seconds=10)) as on:
        await _confirmed(on, "a")
        on.clock.advance(4.9)
        await on.holds.note_sent()
        assert await _waiting(on) == 1
        on.clock.advance(0.2)
        await on.holds.note_sent()
        assert await _waiting(on) == 0
        on.clock.advance(10)
        assert await on.holds.resend() == 0
        assert len(on.sink.waiting) == 1


async def test_what_is_settled_needs_no_note(any_database: Database) -> None:
    async with holding(any_database) as on:
        await _confirmed(on, "a")
        await on.settle()
        assert await _waiting(on) == 0


async def test_an_event_that_another_process_left_is_written_again(any_database: Database) -> None:
    async with holding(any_database) as on:
        await _confirmed(on, "a")
        clock = on.clock
    async with holding(any_database, clock) as other:
        clock.advance(9)
        await other.holds.note_sent()
        assert await other.holds.resend() == 0
        clock.advance(2)
        await other.holds.note_sent()
        assert await other.holds.resend() == 1
        assert len(other.sink.waiting) == 1


async def test_what_was_sent_long_ago_is_forgotten(any_database: Database) -> None:
    """Whoever cannot note it for so long writes it again: it counts once."""
    async with holding(any_database) as on:
        await _confirmed(on, "a")
        key = (NAMESPACE, "a")
        await on.holds.note_sent()
        assert on.holds.sender.is_durable(key)
        for _ in range(2):
            on.clock.advance(21)
            await on.holds.note_sent()
        assert not on.holds.sender.is_durable(key)
        await on.settle()
        assert accepted(await on.holds.get(NAMESPACE, "a", PLACE)).settled


async def test_events_that_come_close_together_are_written_together(any_database: Database) -> None:
    """Nobody waits for them, and each write is one more that makes the disk write through."""
    async with holding(any_database) as on:
        await on.entitle()
        await on.grant(100)
        sizes: list[int] = []
        write = on.sink.write

        async def noting(namespace: str, events: Sequence[UsageEvent]) -> None:
            sizes.append(len(events))
            await write(namespace, events)

        on.sink.write = noting  # type: ignore[method-assign]
        event = UsageEvent("a", "/it", "llm.usage", "ann", on.clock())
        for number in range(50):
            on.holds.sender.send([(NAMESPACE, replace(event, id=str(number)))])
            await asyncio.sleep(0)
        await on.holds.sender.flush()
        assert sum(sizes) == 50
        assert len(sizes) <= 10
