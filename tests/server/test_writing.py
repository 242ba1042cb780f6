"""Events of our own go through the gateway as everybody's do."""

import asyncio
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from entitlements.builtin import FEATURES, METERS, TOKENS, BuiltIns
from entitlements.events import UsageEvent
from entitlements.specs import FeatureSpec
from ingest.limits import IngestLimits
from ingest.metrics import IngestMetrics
from ingest.service import IngestService
from meterline.eventlog.memory import MemoryLog
from meterline.kernel.errors import ConflictError, UnavailableError, ValidationError
from meterline.server.writing import AggregatorMeters, IngestWriter
from tests.support.clock import FixedClock
from tests.support.entitled import entitled

NOW = datetime(2026, 11, 1, 12, 0, 0, 123456, tzinfo=UTC)


def event(id: str = "e-1", **data: Any) -> UsageEvent:
    return UsageEvent(id, "meterline:usage", "meterline.usage", "alice", NOW, data)


async def written(log: MemoryLog) -> list[list[dict[str, object]]]:
    return [json.loads(one.events) for one in await log.read(0, 0, 10_000)]


async def test_amounts_keep_every_digit_and_times_every_microsecond() -> None:
    log = MemoryLog()
    ingest = IngestService(log, FixedClock(), IngestLimits(), IngestMetrics())
    data: dict[str, Any] = {
        "cost": Decimal("1E-18"),
        "large": Decimal("1.2E+19"),
        "text": "ü\u2028",
        "tags": ("a", "b"),
        "nested": {"price": Decimal("2.50"), "per": 1_000_000},
        "none": None,
    }
    await IngestWriter(ingest).write("default", [event(**data)])
    ingest.close()
    ((one,),) = await written(log)
    assert one["time"] == "2026-11-01T12:00:00.123456Z"
    assert one["data"] == {
        "cost": "0.000000000000000001",
        "large": "12000000000000000000",
        "text": "ü\u2028",
        "tags": ["a", "b"],
        "nested": {"price": "2.5", "per": 1_000_000},
        "none": None,
    }


async def test_more_than_a_batch_is_cut_and_too_much_is_refused() -> None:
    log = MemoryLog()
    limits = IngestLimits(max_batch_events=3, max_attribute_length=20)
    ingest = IngestService(log, FixedClock(), limits, IngestMetrics())
    writer = IngestWriter(ingest)
    await writer.write("default", [event(f"e-{n}") for n in range(7)])
    assert [len(batch) for batch in await written(log)] == [3, 3, 1]
    await writer.write("default", [])
    with pytest.raises(ValidationError):
        await writer.write("default", [event("i" * 21)])
    await log.close()
    with pytest.raises(UnavailableError):
        await writer.write("default", [event()])
    ingest.close()


async def test_built_ins_are_made_once_however_many_ask(tmp_path: Path) -> None:
    async with entitled(tmp_path, [], FixedClock()) as base:
        makers = [BuiltIns(AggregatorMeters(base.meters), base.features) for _ in range(3)]
        await asyncio.gather(*(one.ensure("default") for one in makers * 4))
        meters = await base.meters.list("default")
        assert sorted(one.slug for one in meters) == sorted(one.slug for one in METERS)
        for key, slug in FEATURES.items():
            assert (await base.features.get("default", key)).meter_slug == slug
        # A namespace of its own, and a new process that finds them there.
        await makers[0].ensure("other")
        await BuiltIns(AggregatorMeters(base.meters), base.features).ensure("default")
        assert len(await base.meters.list("default")) == len(METERS)


async def test_a_feature_of_ones_own_under_a_reserved_key_is_told(tmp_path: Path) -> None:
    async with entitled(tmp_path, [], FixedClock()) as base:
        own = await base.features.create("default", FeatureSpec("credits", "mine"))
        built_ins = BuiltIns(AggregatorMeters(base.meters), base.features)
        with pytest.raises(ConflictError, match="credits"):
            await built_ins.ensure("default")
        await base.features.archive("default", own.id)
        await built_ins.ensure("default")
        assert (await base.features.get("default", TOKENS)).meter_slug == TOKENS
