"""Live rows after a change of the meter that they follow."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from entitlements.model import EntitlementType
from entitlements.specs import EntitlementSpec, FeatureSpec, RecurrenceSpec
from meterline.kernel.meters import Aggregation, MeterSpec
from meterline.kernel.periods import parse_interval
from tests.support.clock import FixedClock
from tests.support.entitled import Entitled, entitled
from tests.support.usage import canonical, send

NS, SUBJECT = "default", "ann"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
SUM = MeterSpec(
    "tokens", "tokens", None, Aggregation.SUM, "llm.usage", "$.n", {"model": "$.model"}, None, {}
)
# It keeps the series of the first meter alive, whatever becomes of that.
OTHER = replace(SUM, slug="other")


@pytest.mark.parametrize(
    ("changed", "usage"),
    [
        (replace(SUM, aggregation=Aggregation.MAX), 7),
        (replace(SUM, group_by={"model": "$.other"}), 5),
        (replace(SUM, event_from=START + timedelta(seconds=90)), 7),
    ],
)
async def test_answers_follow_the_meter(tmp_path: Path, changed: MeterSpec, usage: int) -> None:
    clock = FixedClock(START)
    async with entitled(tmp_path, [SUM, OTHER], clock) as on:
        filters = {"model": ("a",)}
        await on.features.create(NS, FeatureSpec("tokens", "tokens", "tokens", filters))
        spec = EntitlementSpec(
            EntitlementType.METERED, "tokens", usage_period=RecurrenceSpec(parse_interval("MONTH"))
        )
        await on.entitlements.create(NS, SUBJECT, spec)
        await _use(on, "1", '{"n": 5, "model": "a", "other": "a"}')
        await _use(on, "2", '{"n": 7, "model": "a", "other": "b"}')
        before = await on.values.value(NS, SUBJECT, "tokens")
        assert before.metered is not None
        assert before.metered.usage == 12
        assert await on.live.look_up(NS, SUBJECT, "tokens", clock()) is not None
        await on.meters.reconcile(NS, [changed])
        for values in (on.plain, on.values):
            after = await values.value(NS, SUBJECT, "tokens")
            assert after.metered is not None
            assert after.metered.usage == usage


async def _use(on: Entitled, name: str, data: str) -> None:
    on.clock.advance(60)
    time = on.clock().isoformat()
    await send(on.rig.log, [canonical(name, data, subject=SUBJECT, time=time)])
    on.clock.advance(1)
    await on.rig.settle()
