"""Meters that features need stay as they are."""

from dataclasses import replace

from entitlements.services.meters import MeterUse
from meterline.kernel.meters import Aggregation
from tests.support.entitlements import Bench
from tests.support.usage import meter

TOKENS = meter("tokens", model="$.model", region="$.region")


async def test_a_meter_nobody_uses(bench: Bench) -> None:
    use = MeterUse(bench.database)
    await bench.feature("plain", meterSlug=None)
    assert await use(TOKENS, None) is None


async def test_a_feature_keeps_its_meter(bench: Bench) -> None:
    use = MeterUse(bench.database)
    await bench.feature(meterGroupByFilters={"model": "gpt-4"})
    assert await use(TOKENS, None) == "the feature tokens uses it"
    assert await use(replace(TOKENS, namespace="other"), None) is None
    assert await use(TOKENS, replace(TOKENS, name="Other", aggregation=Aggregation.MAX)) is None
    without = replace(TOKENS, group_by={"region": "$.region"})
    assert await use(TOKENS, without) == "the feature tokens filters by its groupBy key model"
    assert await use(TOKENS, replace(TOKENS, group_by={"model": "$.m"})) is None
    average = replace(TOKENS, aggregation=Aggregation.AVG)
    assert "not AVG" in str(await use(TOKENS, average))


async def test_an_archived_feature_keeps_it_as_long_as_somebody_is_entitled(bench: Bench) -> None:
    use = MeterUse(bench.database)
    await bench.feature()
    await bench.entitle()
    await bench.call("DELETE", "/features/tokens", status=204)
    assert await use(TOKENS, None) == "the feature tokens uses it"
    await bench.call("DELETE", "/subjects/alice/entitlements/tokens", status=204)
    assert await use(TOKENS, None) is None
