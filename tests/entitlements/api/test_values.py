"""Values over HTTP: what may be used, to the last digit."""

from decimal import Decimal
from typing import Any

import pytest

from meterline.kernel.meters import Aggregation
from tests.support.entitlements import Bench
from tests.support.usage import meter


async def test_a_grant_is_used_up(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    granted = await bench.grant(100)
    bench.clock.advance(60)
    bench.use("30.5")
    assert await bench.value() == {
        "hasAccess": True,
        "balance": Decimal("69.5"),
        "usage": Decimal("30.5"),
        "overage": 0,
        "totalAvailableGrantAmount": 100,
        "held": 0,
        "available": Decimal("69.5"),
        "asOf": "2026-03-01T12:00:59.75Z",
        "grantBalances": {granted["id"]: Decimal("69.5")},
    }
    bench.clock.advance(60)
    bench.use(70)
    value = await bench.value()
    assert (value["hasAccess"], value["balance"], value["overage"]) == (False, 0, Decimal("0.5"))


async def test_a_soft_limit_keeps_access(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle(isSoftLimit=True)
    assert (await bench.value())["hasAccess"] is True


async def test_a_late_event_reaches_balance_and_rollover(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle(usagePeriod={"interval": "DAY"})
    await bench.grant(100, maxRolloverAmount=1000)
    bench.at("2026-03-05T00:00:00Z")
    assert (await bench.value())["balance"] == 100
    bench.use(40, "2026-03-02T08:00:00Z")
    value = await bench.value()
    assert (value["balance"], value["usage"]) == (60, 0)


@pytest.mark.parametrize(
    ("aggregation", "events", "usage"),
    [
        (Aggregation.COUNT, [(5, "a"), (5, "b"), (9, "b")], 3),
        (Aggregation.UNIQUE_COUNT, [(5, "a"), (5, "b"), (9, "b")], 2),
        (Aggregation.MAX, [(5, ""), (9, ""), (2, "")], 9),
        (Aggregation.LATEST, [(5, ""), (9, ""), (2, "")], 2),
    ],
)
async def test_every_kind_of_meter(
    bench: Bench, aggregation: Aggregation, events: list[tuple[int, str]], usage: int
) -> None:
    bench.meters.add(meter("other", aggregation))
    await bench.feature("other", meterSlug="other")
    await bench.entitle(featureKey="other")
    await bench.grant(10, ref="other")
    for amount, text in events:
        bench.clock.advance(1)
        bench.use(amount, slug="other", text=text)
    value = await bench.value(ref="other")
    assert (value["usage"], value["balance"]) == (usage, 10 - usage)


async def test_usage_of_now_counts_at_once(bench: Bench) -> None:
    """A clock has microseconds; an answer of now has all that came before it."""
    await bench.feature()
    await bench.entitle()
    bench.at("2026-03-01T13:00:00.000400Z")
    bench.use(7, "2026-03-01T13:00:00.000300Z")
    assert (await bench.value())["usage"] == 7


async def test_values_of_the_past(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle(measureUsageFrom="2026-02-01T00:00:00Z", issueAfterReset=100)
    bench.use(10, "2026-02-10T00:00:00Z")
    bench.use(20, "2026-02-20T00:00:00Z")
    assert (await bench.value(time="2026-02-10T00:00:00Z"))["balance"] == 100
    assert (await bench.value(time="2026-02-10T00:00:00.001Z"))["balance"] == 90
    past = await bench.value(time="2026-02-15T01:00:00+01:00")
    assert (past["balance"], past["asOf"]) == (90, "2026-02-15T00:00:00Z")
    assert await bench.value(time="2026-01-31T23:59:59Z") == {"hasAccess": False}


async def test_values_of_the_future(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle(usagePeriod={"interval": "PT1H"}, issueAfterReset=5)
    value = await bench.value(time="2026-04-01T00:00:00Z")
    assert (value["balance"], value["asOf"]) == (5, "2026-03-01T11:59:59.75Z")
    path = "/subjects/alice/entitlements/tokens/value"
    params = {"time": "2199-01-01T00:00:00Z"}
    problem = await bench.call("GET", path, params=params, status=400)
    assert "more than 20000 usage periods and recurrences" in problem["detail"]


async def test_an_entitlement_that_measures_later_gives_no_access_yet(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle(measureUsageFrom="2026-04-01T00:00:00Z", issueAfterReset=5)
    assert await bench.value() == {"hasAccess": False}
    assert (await bench.value(time="2026-04-01T00:00:00Z"))["hasAccess"] is True


@pytest.mark.parametrize(
    "options",
    [
        {"params": {"wait": "true"}},
        {"headers": {"prefer": "wait=2"}},
        {"headers": {"prefer": "respond-async, wait=10"}},
    ],
)
@pytest.mark.parametrize("what", ["entitlements/tokens/value", "access"])
async def test_waiting_for_what_was_acknowledged(
    bench: Bench, options: dict[str, Any], what: str
) -> None:
    await bench.feature()
    await bench.entitle()
    bench.clock.advance(1)
    bench.use(7, hidden=True)

    async def usage(**given: Any) -> Any:
        found = await bench.call("GET", f"/subjects/alice/{what}", **given)
        return found.get("entitlements", {"tokens": found})["tokens"]["usage"]

    assert await usage() == 0
    assert await usage(**options) == 7


async def test_waiting_in_vain(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    bench.meters.stuck = True
    path = "/subjects/alice/entitlements/tokens/value"
    await bench.call("GET", path, params={"wait": "true"}, status=503)
    await bench.call("GET", path, params={"wait": "perhaps"}, status=400)
    await bench.call("GET", path, headers={"prefer": "wait=soon"})


async def test_who_has_no_entitlement(bench: Bench) -> None:
    await bench.feature()
    problem = await bench.call("GET", "/subjects/bob/entitlements/tokens/value", status=404)
    assert "no such entitlement" in problem["detail"]
    assert await bench.call("GET", "/subjects/bob/access") == {"entitlements": {}}


async def test_access_to_all_features_in_few_reads(bench: Bench) -> None:
    bench.meters.add(meter("calls", Aggregation.COUNT))
    for number in range(4):
        await bench.feature(f"a{number}")
        await bench.entitle(featureKey=f"a{number}", issueAfterReset=10 + number)
        await bench.feature(f"b{number}", meterSlug="calls")
        await bench.entitle(featureKey=f"b{number}", usagePeriod={"interval": "DAY"})
    await bench.feature("gpt4", meterGroupByFilters={"model": "gpt-4"})
    await bench.entitle(featureKey="gpt4", issueAfterReset=100)
    await bench.feature("sso", meterSlug=None)
    await bench.entitle(type="boolean", featureKey="sso")
    await bench.feature("limits", meterSlug=None)
    await bench.entitle(type="static", featureKey="limits", config='{"rpm": 5}')
    await bench.entitle("bob", featureKey="a0", issueAfterReset=1)
    bench.clock.advance(1)
    bench.use(3, model="gpt-4")
    bench.use(4)
    bench.use(1, slug="calls")
    bench.meters.reads.clear()
    found = (await bench.call("GET", "/subjects/alice/access"))["entitlements"]
    assert len(bench.meters.reads) == 3
    assert len(found) == 11
    assert [found[f"a{number}"]["balance"] for number in range(4)] == [3, 4, 5, 6]
    assert [found[f"b{number}"]["overage"] for number in range(4)] == [1, 1, 1, 1]
    assert found["gpt4"]["balance"] == 97
    assert found["sso"] == {"hasAccess": True}
    assert found["limits"] == {"hasAccess": True, "config": '{"rpm": 5}'}
    for key, one in found.items():
        assert await bench.value(ref=key) == one


async def test_a_meter_that_is_gone_is_a_conflict(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    bench.meters.meters.clear()
    path = "/subjects/alice/entitlements/tokens/value"
    problem = await bench.call("GET", path, status=409)
    assert problem["detail"] == "the meter tokens of the feature tokens is gone"
    bench.meters.add(meter("tokens", Aggregation.AVG))
    problem = await bench.call("GET", path, status=409)
    assert "not AVG" in problem["detail"]
