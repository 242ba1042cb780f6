import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from math import isnan
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from aggregator.worker import PartitionStatus
from meterline.eventlog.memory import MemoryLog
from meterline.kernel.errors import UnavailableError
from meterline.server.log import Log
from meterline.server.probes import (
    FreshnessGauge,
    SinkGauges,
    SinkStatus,
    freshness_check,
    log_check,
    sink_check,
)
from meterline.server.stores import probe_folder

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def status_of(position: int, *, stalled: bool = False, error: str | None = None) -> SinkStatus:
    async def status() -> Sequence[PartitionStatus]:
        return [PartitionStatus(0, position, 2, 1.5, stalled, error)]

    return status


def names_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


@pytest.fixture
async def log() -> MemoryLog:
    log = MemoryLog()
    for count in (10, 5):
        await log.append("default", NOW, count, b"[]")
    return log


async def test_the_sink_is_ready_until_it_stalls(log: MemoryLog) -> None:
    busy = await sink_check(status_of(1), log)()
    assert busy.ok
    assert busy.detail == {"lagEvents": 5, "lagSeconds": 1.5, "failing": False}
    stalled = await sink_check(status_of(0, stalled=True, error="hidden detail"), log)()
    assert not stalled.ok
    assert stalled.detail == {"lagEvents": 15, "lagSeconds": 1.5, "failing": True}


async def test_the_lag_is_a_metric(log: MemoryLog) -> None:
    registry = CollectorRegistry()
    await SinkGauges(registry, status_of(1, stalled=True), log).refresh()

    def value(name: str) -> float | None:
        return registry.get_sample_value(f"meterline_sink_{name}", {"partition": "0"})

    assert (value("lag_events"), value("lag_seconds"), value("stalled")) == (5, 1.5, 1)


async def test_partitions_of_others_are_no_metric_any_more(log: MemoryLog) -> None:
    registry = CollectorRegistry()
    gauges = SinkGauges(registry, status_of(1), log)
    await gauges.refresh()

    async def nothing() -> Sequence[PartitionStatus]:
        return []

    gauges._status = nothing
    await gauges.refresh()
    assert registry.get_sample_value("meterline_sink_lag_events", {"partition": "0"}) is None


@pytest.mark.parametrize(("age", "ok"), [(0, True), (-1, True), (30, True), (31, False)])
async def test_answers_are_ready_while_they_are_recent(age: int, ok: bool) -> None:
    async def visible_until() -> datetime:
        return NOW - timedelta(seconds=age)

    result = await freshness_check(visible_until, 30.0, lambda: NOW)()
    assert (result.ok, result.detail) == (ok, {"lagSeconds": max(age, 0)})


async def test_freshness_is_a_metric_that_knows_when_it_knows_nothing() -> None:
    registry = CollectorRegistry()
    answers: list[datetime | Exception] = [NOW - timedelta(seconds=2), UnavailableError("away")]

    async def visible_until() -> datetime:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    gauge = FreshnessGauge(registry, visible_until, lambda: NOW)
    await gauge.refresh()
    assert registry.get_sample_value("meterline_freshness_lag_seconds") == 2
    await gauge.refresh()
    lag = registry.get_sample_value("meterline_freshness_lag_seconds")
    assert lag is not None
    assert isnan(lag)


async def test_a_folder_that_takes_no_bytes_is_not_ready(tmp_path: Path) -> None:
    def log_in(folder: Path) -> Log:
        return Log(None, None, partial(asyncio.to_thread, probe_folder, folder))

    assert (await log_check(log_in(tmp_path))()).ok
    assert names_in(tmp_path) == []
    with pytest.raises(UnavailableError):
        await log_check(log_in(tmp_path / "nowhere"))()
