"""Nothing unbounded: each limit has an error that names it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.entitlements import Bench, running_bench


@pytest_asyncio.fixture
async def small(tmp_path: Path) -> AsyncIterator[Bench]:
    limits = {
        "max_features": 2, "max_filter_values": 1, "max_entitlements": 1, "max_grants": 2,
        "max_resets": 1, "max_config_bytes": 10, "max_subject_length": 5, "max_steps": 10,
        "max_windows": 3, "max_page": 2, "min_interval_seconds": 86_400,
    }  # fmt: skip
    async with running_bench(tmp_path, **limits) as running:
        yield running


async def test_features(small: Bench) -> None:
    body = {"key": "a", "meterSlug": "tokens"}
    body["advancedMeterGroupByFilters"] = {"model": {"$in": ["a", "b"]}}  # type: ignore[assignment]
    problem = await small.call("POST", "/features", body, 400)
    assert "more than 1 values" in problem["detail"]
    await small.feature("a")
    await small.feature("b")
    problem = await small.call("POST", "/features", {"key": "c"}, 400)
    assert problem["detail"] == "a namespace has at most 2 features"
    assert len(await small.call("GET", "/features", params={"limit": 2})) == 2
    problem = await small.call("GET", "/features", params={"limit": 3}, status=400)
    assert problem["detail"] == "limit: must be at most 2"


async def test_entitlements(small: Bench) -> None:
    await small.feature("a")
    await small.feature("b", meterSlug=None)
    hourly = {"interval": "PT23H"}
    problem = await small.entitle(featureKey="a", usagePeriod=hourly, status=400)
    assert "at least 86400 seconds" in problem["detail"]
    old = "2026-02-01T00:00:00Z"
    daily = {"interval": "DAY"}
    problem = await small.entitle(
        featureKey="a", usagePeriod=daily, measureUsageFrom=old, status=400
    )
    assert (
        problem["detail"] == "measureUsageFrom: more than 10 usage periods lie between it and now"
    )
    problem = await small.entitle("alicia", featureKey="a", status=400)
    assert "1 to 5 characters" in problem["detail"]
    config = '{"a":"bcd"}'
    problem = await small.entitle(type="static", featureKey="b", config=config, status=400)
    assert problem["detail"] == "config: has more than 10 bytes"
    await small.entitle(featureKey="a")
    problem = await small.entitle(type="boolean", featureKey="b", status=400)
    assert problem["detail"] == "a subject has at most 1 entitlements"
    await small.entitle("bob", featureKey="a")


async def test_grants_and_resets(small: Bench) -> None:
    await small.feature()
    await small.entitle(usagePeriod={"interval": "WEEK"}, measureUsageFrom="2026-01-01T00:00:00Z")
    problem = await small.grant(
        effectiveAt="2026-01-01T00:00:00Z", recurrence={"interval": "DAY"}, status=400
    )
    assert problem["detail"] == "recurrence: more than 10 recurrences lie between its start and now"
    await small.grant(recurrence={"interval": "DAY"})
    await small.grant()
    problem = await small.grant(status=400)
    assert problem["detail"] == "an entitlement has at most 2 grants"
    small.clock.advance(60)
    await small.reset()
    small.clock.advance(60)
    problem = await small.reset(status=400)
    assert problem["detail"] == "an entitlement has at most 1 resets by hand"


async def test_time_ahead_and_windows(small: Bench) -> None:
    await small.feature()
    await small.entitle(usagePeriod={"interval": "WEEK"})
    await small.grant(recurrence={"interval": "DAY"})
    path = "/subjects/alice/entitlements/tokens"
    # Seven daily recurrences and a week: eight. In ten days there are more than eleven.
    await small.call("GET", f"{path}/value", params={"time": "2026-03-08T12:00:00Z"})
    for name, params in (
        ("value", {"time": "2026-03-11T12:00:00Z"}),
        ("history", {"to": "2026-03-11T12:00:00Z", "windowSize": "MONTH"}),
    ):
        problem = await small.call("GET", f"{path}/{name}", params=params, status=400)
        assert "more than 10 usage periods and recurrences" in problem["detail"]
    params = {"time": "2026-03-11T12:00:00Z"}
    await small.call("GET", "/subjects/alice/access", params=params, status=400)
    small.clock.advance(4 * 3600)
    problem = await small.call("GET", f"{path}/history", params={"windowSize": "HOUR"}, status=400)
    assert "more than 3 windows" in problem["detail"]
