"""Resets over HTTP."""

import asyncio
from typing import Any

import pytest

from tests.support.entitlements import Bench

RESET = "/subjects/alice/entitlements/tokens/reset"


async def period_of(bench: Bench) -> Any:
    return await bench.call("GET", "/subjects/alice/entitlements/tokens")


async def test_a_reset_without_a_body(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle(issueAfterReset=100)
    bench.at("2026-03-10T00:00:00Z")
    bench.use(30)
    await bench.reset()
    value = await bench.value()
    assert (value["usage"], value["balance"]) == (0, 100)
    seen = await period_of(bench)
    assert seen["lastReset"] == seen["usagePeriod"]["anchor"] == "2026-03-10T00:00:00Z"
    assert seen["currentUsagePeriod"]["to"] == "2026-04-10T00:00:00Z"


async def test_the_anchor_can_stay(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    bench.at("2026-03-10T00:00:00Z")
    await bench.reset({"effectiveAt": "2026-03-09T00:00:00Z", "retainAnchor": True})
    seen = await period_of(bench)
    assert seen["usagePeriod"]["anchor"] == "2026-03-01T12:00:00Z"
    assert seen["currentUsagePeriod"] == {
        "from": "2026-03-09T00:00:00Z",
        "to": "2026-04-01T12:00:00Z",
    }


@pytest.mark.parametrize(
    ("rule", "said", "overage"),
    [(False, None, 0), (True, None, 20), (False, True, 20), (True, False, 0)],
)
async def test_overage_is_kept_or_forgiven(
    bench: Bench, rule: bool, said: bool | None, overage: int
) -> None:
    await bench.feature()
    await bench.entitle(preserveOverageAtReset=rule)
    bench.at("2026-03-10T00:00:00Z")
    bench.use(20)
    await bench.reset({} if said is None else {"preserveOverage": said})
    assert (await bench.value())["overage"] == overage


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"effectiveAt": "2026-03-10T00:00:00.001Z"}, "in the future"),
        ({"effectiveAt": "2026-03-01T11:00:00Z"}, "before current usage period start"),
        ({"effectiveAt": "2026-03-08T00:00:00Z"}, "before"),
        ({"effectiveAt": "2026-03-09T00:00:00Z"}, "already"),
        ({"effectiveAt": None, "retainAnchors": True}, "retainAnchors"),
        ({"retainAnchor": "yes"}, "retainAnchor"),
        ({"effectiveAt": "soon"}, "RFC 3339"),
        ([], "body"),
    ],
)
async def test_what_is_refused(bench: Bench, body: Any, says: str) -> None:
    await bench.feature()
    await bench.entitle()
    bench.at("2026-03-09T00:00:00Z")
    await bench.reset()
    bench.at("2026-03-10T00:00:00Z")
    problem = await bench.reset(body, 400)
    assert says in problem["detail"]


async def test_resets_are_for_metered_entitlements(bench: Bench) -> None:
    await bench.feature("sso", meterSlug=None)
    await bench.entitle(type="boolean", featureKey="sso")
    await bench.reset(status=400, ref="sso")


async def test_the_snippet_of_a_readme_that_forgets_an_argument(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    problem = await bench.reset(status=404, ref="[object%20Object]")
    assert "JavaScript object" in problem["detail"]
    assert "three arguments" in problem["detail"]


async def test_of_two_resets_at_one_instant_one_wins(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    bench.clock.advance(60)
    answers = await asyncio.gather(*(bench.http.post(f"/api/v1{RESET}") for _ in range(4)))
    assert sorted(one.status_code for one in answers) == [204, 400, 400, 400]
