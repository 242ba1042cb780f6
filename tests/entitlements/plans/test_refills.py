"""Credits that a plan refills."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entitlements.builtin import CREDITS_TYPE
from entitlements.events import UsageEvent
from meterline.kernel.ids import new_ulid
from tests.support.database import opened, sqlite_url
from tests.support.planning import Planning, planning


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


async def test_what_was_used_of_a_refill_with_rollover_is_not_handed_out_again(
    bench: Planning,
) -> None:
    await bench.plan("large", **allocation(100, rollover=40))
    await bench.plan("small", **allocation(50, rollover=10))
    await bench.assign("large")
    await spend(bench, 100)
    await bench.assign("small")
    assert await bench.credits() == 0
    await bench.assign("small", overrides={})
    assert await bench.credits() == 0
    # The worker looks a day ahead.
    bench.clock.now = datetime(2026, 4, 1, 11, 59, tzinfo=UTC)
    await bench.kit.worker.run_once()
    assert await bench.credits() == 0
    bench.clock.now = datetime(2026, 4, 1, 12, 0, 1, tzinfo=UTC)
    assert await bench.credits() == 50


@pytest.mark.parametrize("rollover", [0, 40])
async def test_a_balance_that_is_reset_is_whole_again(bench: Planning, rollover: int) -> None:
    await bench.plan(**allocation(100, rollover=rollover))
    await bench.plan("small", **allocation(50))
    await bench.assign()
    await spend(bench, 30)
    bench.clock.advance(50)
    await bench.assign(resetBalance=True)
    assert await bench.credits() == 100
    await spend(bench, 20)
    await bench.assign("small")
    assert await bench.credits() == 30
    # The new period is as long as any other.
    bench.clock.now = datetime(2026, 4, 1, 12, 0, 49, tzinfo=UTC)
    assert await bench.credits() == 30
    bench.clock.now = datetime(2026, 4, 1, 12, 0, 51, tzinfo=UTC)
    assert await bench.credits() == 50


async def test_an_interval_that_is_over_counts_no_more(bench: Planning) -> None:
    await bench.plan("day", **allocation(10, "DAY"))
    await bench.plan("month", **allocation(100))
    await bench.assign("day")
    await spend(bench, 10)
    bench.clock.advance(86_400)
    await spend(bench, 4)
    await bench.assign("month")
    assert await bench.credits() == 96
    await spend(bench, 50)
    bench.clock.advance(86_400)
    await bench.assign("day")
    assert await bench.credits() == 0
    bench.clock.advance(86_400)
    assert await bench.credits() == 10
    await bench.call("DELETE", "/subjects/ann/plan", status=204)
    bench.clock.now = datetime(2026, 4, 1, 12, 0, 1, tzinfo=UTC)
    await bench.assign("month")
    assert await bench.credits() == 100


@pytest.mark.parametrize("rollover", [0, 20])
async def test_months_that_began_on_a_31st_end_on_the_last_day(
    bench: Planning, rollover: int
) -> None:
    bench.clock.now = datetime(2026, 12, 31, 12, tzinfo=UTC)
    await bench.plan("first", **allocation(50))
    await bench.plan("second", **allocation(100, rollover=rollover))
    await bench.assign("first")
    # February's month has begun on the 28th.
    bench.clock.now = datetime(2027, 3, 1, 12, tzinfo=UTC)
    await spend(bench, 30)
    await bench.assign("second")
    assert await bench.credits() == 70
    for day, expected in ((30, 70), (31, 100 + rollover)):
        bench.clock.now = datetime(2027, 3, day, 12, 0, 1, tzinfo=UTC)
        await bench.kit.worker.run_once()
        bench.clock.advance(1)
        assert await bench.credits() == expected
    bench.clock.now = datetime(2027, 4, 29, 12, 0, 1, tzinfo=UTC)
    await bench.kit.worker.run_once()
    assert await bench.credits() == 100 + rollover
    bench.clock.now = datetime(2027, 4, 30, 12, 0, 1, tzinfo=UTC)
    await bench.kit.worker.run_once()
    bench.clock.advance(1)
    assert await bench.credits() == 100 + rollover


_ALLOCATIONS: dict[str, dict[str, Any]] = {
    "small": allocation(50),
    "large": allocation(100),
    "week": allocation(70, "WEEK"),
    "rolling": allocation(100, rollover=40),
    "trickle": allocation(50, rollover=50),
    "none": {},
}
_MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("assign"), st.sampled_from([*_ALLOCATIONS, "patched"])),
        st.tuples(st.just("patch"), st.integers(1, 200)),
        st.tuples(st.just("use"), st.integers(1, 120)),
        st.tuples(st.sampled_from(["remove", "align", "reset"]), st.none()),
    ),
    max_size=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(moves=_MOVES)
def test_no_change_of_plan_hands_out_what_was_used(
    tmp_path_factory: pytest.TempPathFactory, moves: list[tuple[str, Any]]
) -> None:
    """In one interval a balance is what the plan's amount has over what was used, whatever moves
    led there."""

    async def run() -> None:
        url = sqlite_url(tmp_path_factory.mktemp("refills"))
        async with opened(url) as database, planning(database, url) as bench:
            await _play(bench, moves)

    asyncio.run(run())


async def _play(bench: Planning, moves: list[tuple[str, Any]]) -> None:
    amounts = {"patched": 100, "": 0}
    for key, fields in _ALLOCATIONS.items():
        await bench.plan(key, **fields)
        amounts[key] = fields["creditAllocation"]["amount"] if fields else 0
    await bench.plan("patched", **allocation(100))
    has, used = "large", 0
    await bench.assign(has)
    for what, which in moves:
        bench.clock.advance(1)
        match what:
            case "assign":
                has = which
                await bench.assign(has)
            case "patch":
                amounts["patched"] = which
                await bench.call("PATCH", "/plans/patched", allocation(which))
                await bench.kit.worker.run_once()
            case "use":
                used += which
                await spend(bench, which)
            case "remove":
                path = "/subjects/ann/plan"
                await bench.call("DELETE", path, status=204 if has else 404)
                has = ""
            case "align":
                if has:
                    await bench.assign(has, overrides={})
            case "reset":
                if has:
                    used = 0
                    await bench.assign(has, resetBalance=True)
        bench.clock.advance(0.001)
        assert await bench.credits() == max(0, amounts[has] - used), (what, which, has, used)
