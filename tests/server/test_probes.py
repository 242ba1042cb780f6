from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from aggregator.worker import PartitionStatus
from meterline.eventlog.memory import MemoryLog
from meterline.kernel.errors import UnavailableError
from meterline.server.probes import SinkGauges, SinkStatus, log_check, sink_check

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


async def test_a_folder_that_takes_no_bytes_is_not_ready(tmp_path: Path) -> None:
    assert (await log_check(tmp_path)()).ok
    assert names_in(tmp_path) == []
    with pytest.raises(UnavailableError):
        await log_check(tmp_path / "nowhere")()
