"""Checks: what is refused, in which words, and that a refusal uses nothing."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meterline.web.asgi import ErrorBoundary
from meterline.web.auth import Principal
from tests.support.api import assert_problem, client_of
from tests.support.database import opened, sqlite_url
from tests.support.planning import Planning, planning


async def test_a_subject_without_a_plan_is_not_limited(bench: Planning) -> None:
    answer = await bench.check()
    assert answer["allowed"] is True
    assert answer["limits"] == [] and "plan" not in answer


async def test_a_used_up_month_is_402(bench: Planning) -> None:
    await bench.plan(monthlyTokenLimit=100, monthlyCostLimitUsd="0.30")
    await bench.assign()
    await bench.use(60, "0.1")
    allowed = await bench.check(estimate={"tokens": 40, "costUsd": "0.2"})
    assert allowed["limits"][0] == {
        "limitType": "monthlyTokenLimit", "limit": 100, "current": 60, "remaining": 40,
        "resetsInSeconds": int(
            (datetime(2026, 4, 1, tzinfo=UTC) - bench.clock()).total_seconds()
        ),
    }  # fmt: skip
    refused = await bench.check(402, estimate={"tokens": 41})
    assert refused["limitType"] == "monthlyTokenLimit"
    assert (refused["limit"], refused["current"]) == (100, 60)
    assert refused["retryAfter"] == allowed["limits"][0]["resetsInSeconds"]
    assert refused["extensions"]["limitType"] == "monthlyTokenLimit"
    cost = await bench.check(402, estimate={"costUsd": "0.200000000000000001"})
    assert cost["limitType"] == "monthlyCostLimitUsd" and cost["current"] == Decimal("0.1")
    await bench.use(40)
    await bench.check(402)
    bench.clock.now = datetime(2026, 4, 1, tzinfo=UTC)
    assert (await bench.check())["limits"][0]["current"] == 0


async def test_usage_of_the_month_before_the_plan_counts(bench: Planning) -> None:
    await bench.plan("free")
    await bench.assign("free")
    await bench.use(60)
    await bench.plan("pro", monthlyTokenLimit=60)
    await bench.assign("pro")
    assert (await bench.check(402))["current"] == 60


async def test_late_usage_and_a_lost_row_change_no_answer(bench: Planning) -> None:
    await bench.plan(monthlyTokenLimit=100)
    await bench.assign()
    await bench.use(10)
    assert (await bench.check())["limits"][0]["current"] == 10
    now = bench.clock.now
    bench.clock.now = now.replace(day=1, hour=1)
    await bench.use(5)
    bench.clock.now = now
    assert (await bench.check())["limits"][0]["current"] == 15
    bench.holding.live.blind = True
    await bench.call("PATCH", "/plans/pro", {"monthlyTokenLimit": 15})
    async with bench.database.transaction() as conn:
        for one in await bench.call("GET", "/subjects/ann/entitlements"):
            await bench.holding.live.invalidate(conn, one["id"])
    assert (await bench.check(402))["current"] == 15


async def test_a_rate_is_429_with_all_that_helps(bench: Planning) -> None:
    await bench.plan(requestsPerMinute=2, requestsPerHour=3)
    await bench.assign()
    first = await bench.send("POST", "/check", {"subject": "ann"})
    assert first.headers["ratelimit-policy"] == (
        '"requestsPerMinute";q=2;w=60, "requestsPerHour";q=3;w=3600'
    )
    assert first.headers["ratelimit"] == (
        '"requestsPerMinute";r=1;t=60, "requestsPerHour";r=2;t=3600'
    )
    bench.clock.advance(10)
    await bench.check()
    bench.clock.advance(49.999)
    response = await bench.send("POST", "/check", {"subject": "ann"})
    body = assert_problem(response, 429)
    assert response.headers["retry-after"] == "1"
    assert '"requestsPerMinute";r=0;t=1' in response.headers["ratelimit"]
    assert (body["limitType"], body["limit"], body["current"], body["retryAfter"]) == (
        "requestsPerMinute", 2, 2, 1,
    )  # fmt: skip
    assert body["windowSeconds"] == 60
    bench.clock.advance(0.001)
    await bench.check()
    assert (await bench.check(429))["limitType"] == "requestsPerHour"


async def test_an_estimate_of_nothing_does_not_pass_what_is_used_up(bench: Planning) -> None:
    credits = {"interval": "MONTH", "amount": 5}
    await bench.plan(monthlyTokenLimit=0)
    await bench.plan("cost", monthlyCostLimitUsd="0.1")
    await bench.plan("credits", creditAllocation=credits)
    for plan, name, used in (
        ("pro", "tokens", "monthlyTokenLimit"),
        ("cost", "costUsd", "monthlyCostLimitUsd"),
        ("credits", "credits", "credits"),
    ):
        await bench.assign(plan)
        if plan == "cost":
            await bench.check(estimate={name: 0})
            await bench.use(1, "0.1")
        if plan == "credits":
            await bench.check(estimate={name: 5}, hold=True)
        plain = await bench.check(402)
        said = await bench.check(402, estimate={name: 0})
        assert plain["limitType"] == said["limitType"] == used
        assert plain["detail"] == said["detail"]


async def test_what_never_fits_says_so(bench: Planning) -> None:
    await bench.plan(tokensPerMinute=100)
    await bench.plan("none", requestsPerMinute=0)
    await bench.assign()
    refused = await bench.check(429, estimate={"tokens": 101})
    assert refused["detail"].endswith("0 of 100 tokens in the last 60 s; 101 never fit")
    await bench.check(estimate={"tokens": 100})
    assert "never" not in (await bench.check(429, estimate={"tokens": 100}))["detail"]
    await bench.assign("none")
    refused = await bench.check(429)
    assert refused["detail"].endswith("0 of 0 requests in the last 60 s; 1 never fit")


class _Reader:
    """Lets everybody in, to read."""

    async def authenticate(self, authorization: str | None) -> Principal:
        return Principal("default", frozenset({"read"}))


async def test_to_set_something_aside_takes_more_than_reading(bench: Planning) -> None:
    await bench.plan(creditAllocation={"interval": "MONTH", "amount": 10})
    await bench.assign()
    authenticator: Any = _Reader()
    endpoint = bench.kit.hot_route(authenticator).endpoint
    body = {"subject": "ann", "estimate": {"credits": 9}}
    async with client_of(ErrorBoundary(endpoint)) as http:
        assert (await http.post("/api/v1/check", json=body)).status_code == 200
        for hold in (True, {"ttlSeconds": 60}):
            response = await http.post("/api/v1/check", json={**body, "hold": hold})
            assert "'ingest'" in str(assert_problem(response, 403)["detail"])
    assert await bench.holding.standing("ann", "credits") == ("0", "0")


async def test_a_dry_run_uses_nothing(bench: Planning) -> None:
    await bench.plan(requestsPerMinute=1)
    await bench.assign()
    for _ in range(3):
        assert (await bench.check(dryRun=True))["limits"][0]["current"] == 0
    await bench.check()
    assert (await bench.check(429, dryRun=True))["current"] == 1


async def test_features_and_credits_are_asked_for(bench: Planning) -> None:
    await bench.call("POST", "/features", {"key": "search"}, 201)
    assert (await bench.check(403, feature="search"))["limitType"] == "search"
    assert (await bench.check(402, estimate={"credits": 1}))["limitType"] == "credits"
    await bench.plan(creditAllocation={"interval": "MONTH", "amount": 10})
    await bench.assign()
    await bench.check(estimate={"credits": 10})
    refused = await bench.check(402, estimate={"credits": "10.5"})
    assert (refused["limitType"], refused["limit"], refused["current"]) == ("credits", 10, 0)


async def test_tokens_per_minute_count_estimates_and_records(bench: Planning) -> None:
    await bench.plan(tokensPerMinute=100)
    await bench.assign()
    await bench.check(estimate={"tokens": 70})
    refused = await bench.check(429, estimate={"tokens": 40})
    assert (refused["limitType"], refused["current"]) == ("tokensPerMinute", 70)
    await bench.kit.checks.recorded("default", "ann", 20)
    await bench.check(estimate={"tokens": 80})
    await bench.check(429)
    too_many = await bench.check(429, estimate={"tokens": 101})
    assert too_many["retryAfter"] == 60


async def test_a_hold_keeps_a_hard_limit(bench: Planning) -> None:
    """Sixty-four clients at once, and what they recorded is only counted long after."""
    await bench.plan(monthlyTokenLimit=1_000)
    await bench.assign()
    answers = await asyncio.gather(
        *(
            bench.send("POST", "/check", {"subject": "ann", "estimate": {"tokens": 90}, **hold})
            for hold in [{"hold": True}] * 64
        )
    )
    allowed = [one.json() for one in answers if one.status_code == 200]
    assert len(allowed) == 11
    assert {one.status_code for one in answers} == {200, 402}
    refused = next(one.json() for one in answers if one.status_code == 402)
    assert (refused["limitType"], refused["limit"], refused["current"]) == (
        "monthlyTokenLimit", 1000, 990,
    )  # fmt: skip
    # What is set aside is refused to those who set nothing aside, too; until it expires.
    await bench.check(402, estimate={"tokens": 90})
    bench.clock.advance(600.001)
    await bench.check(estimate={"tokens": 1_000})


async def test_a_refused_rate_gives_its_hold_back(bench: Planning) -> None:
    await bench.plan(monthlyTokenLimit=100, requestsPerMinute=1, creditAllocation={
        "interval": "MONTH", "amount": 10,
    })  # fmt: skip
    await bench.assign()
    answer = await bench.check(estimate={"tokens": 10, "credits": 2}, hold={"ttlSeconds": 600})
    assert {one["featureKey"]: one["amount"] for one in answer["holds"]} == {
        "meterline_tokens": 10, "credits": 2,
    }  # fmt: skip
    await bench.check(429, estimate={"tokens": 10, "credits": 2}, hold=True)
    bench.clock.advance(60)
    await bench.check(402, estimate={"tokens": 10, "credits": 9}, hold=True)
    assert await bench.holding.standing("ann", "meterline_tokens") == ("10", "0")
    assert await bench.holding.standing("ann", "credits") == ("2", "0")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"subject": ""}',
        b'{"subject": "a\\u0000"}',
        b'{"subject": "a", "feature": "\\u0000"}',
        b'{"subject": 1}',
        b'{"subject": "a", "estimate": {"tokens": -1}}',
        b'{"subject": "a", "estimate": {"tokens": 1.5}}',
        b'{"subject": "a", "estimate": {"costUsd": "NaN"}}',
        b'{"subject": "a", "estimate": {"costUsd": 1e400}}',
        b'{"subject": "a", "estimate": {"costUsd": 1e-30}}',
        b'{"subject": "a", "hold": true}',
        b'{"subject": "a", "hold": {"ttlSeconds": 0}, "estimate": {"tokens": 1}}',
        b'{"subject": "a", "unknown": 1}',
        b"[" * 100_000,
    ],
)
async def test_what_is_no_check_is_400(tmp_path: Path, body: bytes) -> None:
    url = sqlite_url(tmp_path)
    async with opened(url) as database, planning(database, url) as bench:
        response = await bench.send("POST", "/check", body)
        assert response.status_code in (400, 413), response.text
        assert response.headers["content-type"] == "application/problem+json"


_FIELDS = {
    "monthlyTokenLimit": st.none() | st.integers(0, 300),
    "requestsPerMinute": st.none() | st.integers(0, 4),
    "requestsPerHour": st.none() | st.integers(0, 8),
    "tokensPerMinute": st.none() | st.integers(0, 200),
}
_STEPS = st.lists(
    st.tuples(st.sampled_from(["check", "check", "dry", "use", "wait"]), st.integers(0, 90)),
    max_size=30,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(limits=st.fixed_dictionaries(_FIELDS), steps=_STEPS)
def test_all_limits_hold_at_once(
    tmp_path_factory: pytest.TempPathFactory, limits: dict[str, Any], steps: Any
) -> None:
    """Against a model that keeps book of everything by the plainest means."""

    async def run() -> None:
        url = sqlite_url(tmp_path_factory.mktemp("checks"))
        async with opened(url) as database, planning(database, url) as bench:
            await bench.plan(**limits)
            await bench.assign()
            await _play(bench, limits, steps)

    asyncio.run(run())


async def _play(bench: Planning, limits: dict[str, int | None], steps: Any) -> None:
    admitted: list[tuple[datetime, int]] = []
    used = 0

    def within(seconds: int) -> list[int]:
        now = bench.clock()
        return [tokens for at, tokens in admitted if (now - at).total_seconds() < seconds]

    for kind, amount in steps:
        if kind == "wait":
            bench.clock.advance(amount * amount)
        elif kind == "use":
            await bench.use(amount)
            used += amount
        else:
            expected = {
                "monthlyTokenLimit": used + amount,
                "requestsPerMinute": len(within(60)) + 1,
                "requestsPerHour": len(within(3_600)) + 1,
                "tokensPerMinute": sum(within(60)) + max(amount, 1),
            }
            broken = {
                name
                for name, wanted in expected.items()
                if (limit := limits[name]) is not None and wanted > limit
            }
            body = {"subject": "ann", "estimate": {"tokens": amount}, "dryRun": kind == "dry"}
            response = await bench.send("POST", "/check", body)
            if broken:
                assert response.status_code in (402, 429)
                assert response.json()["limitType"] in broken
            else:
                assert response.status_code == 200, response.text
                if kind == "check":
                    admitted.append((bench.clock(), amount))
