"""Where the documentation says that we differ from OpenMeter: its examples, as they are there."""

from decimal import Decimal
from typing import Any

from meterline.kernel.meters import Aggregation
from tests.support.entitlements import Bench
from tests.support.usage import meter

JANUARY = "2026-01-01T00:00:00Z"


async def entitled(bench: Bench, now: str = JANUARY, **fields: Any) -> None:
    bench.at(now)
    await bench.feature()
    await bench.entitle(measureUsageFrom=now, **fields)


async def test_late_events_count(bench: Bench) -> None:
    await entitled(bench)
    await bench.grant(100, maxRolloverAmount=100)
    bench.at("2026-02-04T00:00:00Z")
    assert (await bench.value())["balance"] == 100
    bench.at("2026-02-05T00:00:00Z")
    bench.use(40, "2026-01-30T00:00:00Z")
    assert (await bench.value())["balance"] == 60


async def test_instants_are_exact_to_the_millisecond(bench: Bench) -> None:
    await entitled(bench)
    await bench.grant(50, effectiveAt="2026-01-01T12:00:30.500Z")
    assert (await bench.value(time="2026-01-01T12:00:30.499Z"))["balance"] == 0
    assert (await bench.value(time="2026-01-01T12:00:30.500Z"))["balance"] == 50


async def test_numbers_are_exact(bench: Bench) -> None:
    await entitled(bench)
    await bench.grant(1)
    bench.clock.advance(1)
    bench.use("0.1")
    bench.use("0.2")
    assert (await bench.value())["balance"] == Decimal("0.7")


async def test_expiry_clamps_as_periods_do(bench: Bench) -> None:
    await entitled(bench)
    made = await bench.grant(
        effectiveAt="2026-01-31T00:00:00Z", expiration={"duration": "MONTH", "count": 1}
    )
    assert made["expiresAt"] == "2026-02-28T00:00:00Z"


async def test_periods_may_have_a_time_zone(bench: Bench) -> None:
    bench.at("2026-02-28T23:00:00Z")
    await bench.feature()
    period = {"interval": "MONTH", "anchor": "2026-02-28T23:00:00Z", "timeZone": "Europe/Berlin"}
    made = await bench.entitle(usagePeriod=period)
    assert made["currentUsagePeriod"]["to"] == "2026-03-31T22:00:00Z"
    del period["timeZone"]
    made = await bench.entitle("bob", usagePeriod=period)
    assert made["currentUsagePeriod"]["to"] == "2026-03-28T23:00:00Z"


async def test_a_gauge_keeps_its_reading(bench: Bench) -> None:
    bench.meters.add(meter("tokens", Aggregation.LATEST))
    await entitled(bench)
    await bench.grant(100)
    bench.clock.advance(60)
    bench.use(30)
    assert (await bench.value())["balance"] == 70
    await bench.grant(50)
    bench.clock.advance(60)
    assert (await bench.value())["balance"] == 120


async def test_grants_may_be_back_dated(bench: Bench) -> None:
    await entitled(bench, preserveOverageAtReset=True)
    bench.use(30, "2026-01-10T00:00:00Z")
    bench.at("2026-03-15T00:00:00Z")
    await bench.grant(100, effectiveAt="2026-01-05T00:00:00Z", maxRolloverAmount=60)
    assert (await bench.value(time="2026-01-31T00:00:00Z"))["balance"] == 70
    assert (await bench.value())["balance"] == 60


async def test_preserved_overage_is_paid_after_all_that_happens_at_the_reset(
    bench: Bench,
) -> None:
    await entitled(bench, usagePeriod={"interval": "DAY"}, preserveOverageAtReset=True)
    await bench.grant(
        10, recurrence={"interval": "DAY"}, minRolloverAmount=10, maxRolloverAmount=10
    )
    bench.use(13, "2026-01-01T12:00:00Z")
    bench.at("2026-01-02T00:00:00Z")
    assert (await bench.value())["balance"] == 7


async def test_history_is_by_day_in_whole_windows(bench: Bench) -> None:
    await entitled(bench)
    bench.at("2026-01-02T00:00:00Z")
    path = "/subjects/alice/entitlements/tokens/history"
    (day,) = (await bench.call("GET", path))["windowedHistory"]
    assert day["period"] == {"from": JANUARY, "to": "2026-01-02T00:00:00Z"}
    params = {"windowSize": "HOUR", "from": "2026-01-01T05:30:00Z"}
    hours = (await bench.call("GET", path, params=params))["windowedHistory"]
    assert hours[0]["period"]["from"] == "2026-01-01T05:00:00Z"
