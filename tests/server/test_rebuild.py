"""Live usage is proven equal to the event store's, made anew, and forgotten with its subject."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import sqlalchemy as sa

from entitlements.model import EntitlementType
from entitlements.services.rebuild import Compared
from entitlements.services.warming import Warmer
from entitlements.specs import EntitlementSpec, FeatureSpec, GrantSpec, RecurrenceSpec
from entitlements.stores.live import live_entitlements
from meterline.kernel.meters import Aggregation, MeterSpec
from meterline.kernel.periods import parse_interval
from tests.support.clock import FixedClock
from tests.support.entitled import Entitled, entitled
from tests.support.usage import canonical, send

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
TOKENS = MeterSpec("tokens", "tokens", None, Aggregation.SUM, "llm.usage", "$.n", {}, None, {})
SUBJECTS = ("ann", "bob")


async def _set_up(on: Entitled) -> None:
    await on.features.create("default", FeatureSpec("tokens", "tokens", "tokens"))
    period = RecurrenceSpec(parse_interval("MONTH"))
    for subject in SUBJECTS:
        spec = EntitlementSpec(
            EntitlementType.METERED, "tokens", usage_period=period, issue_after_reset=Decimal(100)
        )
        await on.entitlements.create("default", subject, spec)
        await on.values.value("default", subject, "tokens")
    on.clock.advance(60)
    for number in range(10):
        events = [
            canonical(
                f"{subject}{number}", '{"n": 1.5}', subject=subject, time="2026-03-01T12:00:30Z"
            )
            for subject in SUBJECTS
        ]
        later = canonical(f"later{number}", '{"n": 1}', subject="ann", time="2026-03-02T00:00:00Z")
        await send(on.rig.log, [*events, later])
    await on.rig.settle()


async def _usage(on: Entitled, subject: str) -> Decimal:
    access = await on.values.value("default", subject, "tokens")
    assert access.metered is not None
    return access.metered.usage


async def _compared(on: Entitled) -> list[Compared]:
    return [one async for one in on.live_usage.compare()]


async def test_live_usage_equals_the_event_store(tmp_path: Path) -> None:
    async with entitled(tmp_path, [TOKENS], FixedClock(START)) as on:
        await _set_up(on)
        compared = await _compared(on)
        assert {one.subject: (one.kept, one.stored) for one in compared} == {
            "ann": (Decimal(25), Decimal(25)),
            "bob": (Decimal(15), Decimal(15)),
        }


async def test_a_wrong_row_is_found_and_mended(tmp_path: Path) -> None:
    async with entitled(tmp_path, [TOKENS], FixedClock(START)) as on:
        await _set_up(on)
        async with on.rig.database.transaction() as conn:
            of_bob = live_entitlements.c.subject == "bob"
            await conn.execute(sa.update(live_entitlements).where(of_bob).values(usage="14"))
        wrong = [one.subject for one in await _compared(on) if not one.agrees]
        assert wrong == ["bob"]
        done: list[int] = []
        await on.live_usage.rebuild(done.append)
        assert done == [1, 2]
        assert all(one.agrees for one in await _compared(on))
        assert await _usage(on, "bob") == 15


async def test_a_purge_reaches_the_balance(tmp_path: Path) -> None:
    async with entitled(tmp_path, [TOKENS], FixedClock(START)) as on:
        await _set_up(on)
        assert await _usage(on, "ann") == 15
        await on.rig.sink.purge("default", "ann")
        assert [await _usage(on, subject) for subject in SUBJECTS] == [Decimal(0), Decimal(15)]


async def test_rows_that_a_change_threw_away_are_calculated_before_anybody_asks(
    tmp_path: Path,
) -> None:
    async with entitled(tmp_path, [TOKENS], FixedClock(START)) as on:
        await _set_up(on)
        grant = GrantSpec(Decimal(5), on.clock())
        await on.grants.create("default", "ann", "tokens", grant)
        now = on.clock()
        assert await on.live.look_up("default", "ann", "tokens", now) is None
        warmer = Warmer(on.rig.database, on.live, on.clock)
        assert await warmer.warm_all(asyncio.Event()) == 1
        assert await warmer.warm_all(asyncio.Event()) == 0
        warm = await on.live.look_up("default", "ann", "tokens", now)
        assert warm is not None and warm.metered is not None
        assert warm.metered.total_available_grant_amount == 105


async def test_what_the_sink_cannot_follow_is_tried_once_a_change(tmp_path: Path) -> None:
    peak = replace(TOKENS, slug="peak", aggregation=Aggregation.MAX)
    async with entitled(tmp_path, [peak], FixedClock(START)) as on:
        await on.features.create("default", FeatureSpec("peak", "peak", "peak"))
        month = RecurrenceSpec(parse_interval("MONTH"))
        spec = EntitlementSpec(EntitlementType.METERED, "peak", usage_period=month)
        await on.entitlements.create("default", "ann", spec)
        warmer = Warmer(on.rig.database, on.live, on.clock)
        for _ in range(2):
            await on.grants.create("default", "ann", "peak", GrantSpec(Decimal(5), on.clock()))
            assert await warmer.warm_all(asyncio.Event()) == 1
            assert await warmer.warm_all(asyncio.Event()) == 0
