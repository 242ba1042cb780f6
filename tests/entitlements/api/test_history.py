"""History over HTTP."""

from typing import Any

import pytest

from tests.support.entitlements import Bench

HISTORY = "/subjects/alice/entitlements/tokens/history"


async def start(bench: Bench) -> str:
    await bench.feature()
    await bench.entitle(
        usagePeriod={"interval": "MONTH", "anchor": "2026-03-01T00:00:00Z"},
        measureUsageFrom="2026-03-01T00:00:00Z",
    )
    grant = await bench.grant(100, effectiveAt="2026-03-01T00:00:00Z")
    bench.use(10, "2026-03-01T06:00:00Z")
    bench.use("0.5", "2026-03-03T06:00:00Z")
    bench.at("2026-03-04T00:00:00Z")
    return str(grant["id"])


async def test_without_parameters_it_is_this_period_by_day(bench: Bench) -> None:
    grant = await start(bench)
    told = await bench.call("GET", HISTORY)
    first, second, third = told["windowedHistory"]
    assert first == {
        "period": {"from": "2026-03-01T00:00:00Z", "to": "2026-03-02T00:00:00Z"},
        "usage": 10,
        "balanceAtStart": 100,
        "overageAtStart": 0,
    }
    assert (second["usage"], second["balanceAtStart"]) == (0, 90)
    assert (str(third["usage"]), third["balanceAtStart"]) == ("0.5", 90)
    (segment,) = told["burndownHistory"]
    assert str(segment["usage"]) == "10.5"
    assert segment == {
        "period": {"from": "2026-03-01T00:00:00Z", "to": "2026-03-04T00:00:00Z"},
        "usage": segment["usage"],
        "overage": 0,
        "overageAtStart": 0,
        "balanceAtStart": 100,
        "grantBalancesAtStart": {grant: 100},
        "balanceAtEnd": 100 - segment["usage"],
        "grantBalancesAtEnd": {grant: 100 - segment["usage"]},
        "grantUsages": [{"grantId": grant, "usage": segment["usage"]}],
    }


async def test_a_reset_cuts_the_burn_down(bench: Bench) -> None:
    await start(bench)
    await bench.reset()
    bench.at("2026-03-05T00:00:00Z")
    told = await bench.call("GET", HISTORY, params={"from": "2026-03-01T00:00:00Z"})
    ending, rollover, after = told["burndownHistory"]
    assert ending["endsInReset"] is True
    assert rollover["isRollover"] is True
    assert rollover["period"]["from"] == rollover["period"]["to"] == "2026-03-04T00:00:00Z"
    assert (after["balanceAtStart"], after["usage"]) == (0, 0)


async def test_windows_of_a_zone(bench: Bench) -> None:
    await start(bench)
    params = {"windowSize": "HOUR", "from": "2026-03-01T05:30:00Z", "to": "2026-03-01T07:00:00Z"}
    told = await bench.call("GET", HISTORY, params=params)
    assert [one["usage"] for one in told["windowedHistory"]] == [0, 10]
    params = {"windowTimeZone": "Asia/Tokyo"}
    told = await bench.call("GET", HISTORY, params=params)
    starts = [one["period"]["from"] for one in told["windowedHistory"]]
    assert starts[:2] == ["2026-03-01T15:00:00Z", "2026-03-02T15:00:00Z"]


async def test_the_history_of_a_deleted_entitlement_ends_with_it(bench: Bench) -> None:
    await start(bench)
    made = await bench.call("GET", "/subjects/alice/entitlements/tokens")
    await bench.call("DELETE", "/subjects/alice/entitlements/tokens", status=204)
    bench.at("2026-03-20T00:00:00Z")
    path = f"/subjects/alice/entitlements/{made['id']}/history"
    told = await bench.call("GET", path)
    assert told["windowedHistory"][-1]["period"]["to"] == "2026-03-04T00:00:00Z"


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({"from": "2026-02-28T00:00:00Z"}, "2026-03-01T00:00:00Z"),
        ({"from": "2026-03-03T00:00:00Z", "to": "2026-03-02T00:00:00Z"}, "before to"),
        ({"windowSize": "WEEK"}, "windowSize"),
        ({"windowTimeZone": "Moon"}, "windowTimeZone: unknown time zone"),
        ({"to": "tomorrow"}, "RFC 3339"),
        ({"to": "2026-06-01T00:00:00Z", "windowSize": "MINUTE"}, "20000 windows"),
    ],
)
async def test_what_is_refused(bench: Bench, params: dict[str, Any], says: str) -> None:
    await start(bench)
    problem = await bench.call("GET", HISTORY, params=params, status=400)
    assert says in problem["detail"]


async def test_history_is_of_metered_entitlements(bench: Bench) -> None:
    await bench.feature("sso", meterSlug=None)
    await bench.entitle(type="boolean", featureKey="sso")
    await bench.call("GET", "/subjects/alice/entitlements/sso/history", status=400)
    await bench.call("GET", "/subjects/alice/entitlements/none/history", status=404)
