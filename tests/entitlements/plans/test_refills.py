"""Credits that a plan refills."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from entitlements.builtin import CREDITS_TYPE
from entitlements.events import UsageEvent
from meterline.kernel.ids import new_ulid
from tests.support.planning import Planning


async def spend(bench: Planning, amount: int) -> None:
    bench.clock.advance(0.001)
    at = bench.clock()
    data = {"amount": str(amount), "model": "", "kind": "hold"}
    event = UsageEvent(new_ulid(at), "test", CREDITS_TYPE, "ann", at, data)
    await bench.holding.sink.write("default", [event])
    await bench.holding.sink.catch_up()
    bench.clock.advance(0.001)


def allocation(amount: int, interval: str = "MONTH", rollover: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {"interval": interval, "amount": amount}
    return {"creditAllocation": {**found, "maxRollover": rollover} if rollover else found}


async def test_credits_are_set_to_the_amount_at_each_interval(bench: Planning) -> None:
    await bench.plan(**allocation(100))
    await bench.plan("week", **allocation(7, "WEEK"))
    await bench.assign()
    await bench.assign("week", "bob")
    await spend(bench, 30)
    assert await bench.credits() == 70
    bench.clock.now = datetime(2026, 4, 1, 12, 0, 1, tzinfo=UTC)
    assert await bench.credits() == 100
    assert await bench.credits("bob") == 7
    bench.clock.now = datetime(2027, 1, 1, tzinfo=UTC)
    assert await bench.credits() == 100


async def test_rollover_keeps_some_of_what_is_left_for_one_interval(bench: Planning) -> None:
    await bench.plan(**allocation(100, rollover=20))
    await bench.assign()
    await spend(bench, 30)
    for month, expected in ((4, 120), (5, 120), (6, 120)):
        # The worker looks more often than that; it issues a refill up to a day ahead.
        bench.clock.now = datetime(2026, month, 1, 11, 59, tzinfo=UTC)
        await bench.kit.worker.run_once()
        await bench.kit.worker.run_once()
        bench.clock.now = datetime(2026, month, 1, 12, 0, 1, tzinfo=UTC)
        assert await bench.credits() == expected
        await bench.kit.worker.run_once()
        assert await bench.credits() == expected
    await spend(bench, 115)
    bench.clock.now = datetime(2026, 7, 1, 11, 59, tzinfo=UTC)
    await bench.kit.worker.run_once()
    bench.clock.now = datetime(2026, 7, 1, 12, 0, 1, tzinfo=UTC)
    assert await bench.credits() == 105


async def test_a_worker_that_was_away_issues_what_is_due(bench: Planning) -> None:
    await bench.plan(**allocation(100, rollover=20))
    await bench.assign()
    bench.clock.now = datetime(2026, 9, 10, tzinfo=UTC)
    await bench.kit.worker.run_once()
    assert await bench.credits() == 100


async def test_another_plan_keeps_what_was_used_unless_it_starts_afresh(bench: Planning) -> None:
    await bench.plan("small", **allocation(100))
    await bench.plan("large", **allocation(500))
    await bench.plan("none")
    await bench.assign("small")
    await spend(bench, 30)
    await bench.assign("large")
    assert await bench.credits() == 470
    await bench.assign("small")
    assert await bench.credits() == 70
    await bench.assign("small")
    assert await bench.credits() == 70
    await spend(bench, 60)
    await bench.assign("large")
    assert await bench.credits() == 410
    await bench.call("PUT", "/subjects/ann/plan", {"plan": "small", "resetBalance": True})
    assert await bench.credits() == 100
    bench.clock.advance(1)
    await bench.assign("none")
    assert await bench.credits() == 0


async def test_a_changed_allocation_reaches_those_who_have_the_plan(bench: Planning) -> None:
    await bench.plan(**allocation(100))
    await bench.assign()
    await spend(bench, 30)
    await bench.call("PATCH", "/plans/pro", allocation(150))
    assert await bench.credits() == 70
    await bench.kit.worker.run_once()
    bench.clock.advance(0.001)
    assert await bench.credits() == 120
    bench.clock.now = datetime(2026, 4, 1, 12, 0, 1, tzinfo=UTC)
    assert await bench.credits() == 150


async def test_bought_credits_outlive_every_refill(bench: Planning) -> None:
    await bench.plan(**allocation(100))
    await bench.assign()
    async with bench.database.transaction() as conn:
        await bench.kit.members.grant_credits(conn, "default", "ann", Decimal(7), {})
    await spend(bench, 90)
    bench.clock.now = datetime(2026, 6, 1, 12, 0, 1, tzinfo=UTC)
    assert await bench.credits() == 107
    await bench.call("PUT", "/subjects/ann/plan", {"plan": "pro", "resetBalance": True})
    assert await bench.credits() == 107
