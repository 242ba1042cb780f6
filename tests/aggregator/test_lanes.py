"""How a plan's records are spread over statements that run side by side."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.scratch import LANES
from aggregator.staging import _WORTH_LANES_BYTES, _lanes_for, _ranges, _shares
from meterline.eventlog.port import Record
from tests.support.usage import canonical, meter, running_sink, send

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _records(sizes: Sequence[int]) -> list[Record]:
    return [
        Record(0, offset, "default", _NOW, 1, b"x" * size)
        for offset, size in enumerate(sizes, start=1)
    ]


@given(st.lists(st.integers(2, 400), min_size=1, max_size=30), st.integers(1, LANES))
def test_every_record_is_in_one_lane_and_they_stay_in_order(sizes: list[int], lanes: int) -> None:
    records = _records(sizes)
    shares = _shares(records, lanes)
    assert len(shares) == lanes
    assert [one for share in shares for one in share] == records


@given(st.integers(1, 10**12), st.integers(0, 1000), st.integers(1, LANES))
def test_every_offset_is_in_one_range(first: int, more: int, lanes: int) -> None:
    ranges = _ranges(first, first + more, lanes)
    covered = [offset for after, through in ranges for offset in range(after + 1, through + 1)]
    assert covered == list(range(first, first + more + 1))


def test_only_large_plans_have_several_lanes() -> None:
    assert _lanes_for([]) == 1
    assert _lanes_for(_records([_WORTH_LANES_BYTES - 1])) == 1
    assert _lanes_for(_records([_WORTH_LANES_BYTES - 1, 1])) == LANES


@pytest.mark.parametrize("least", [0, _WORTH_LANES_BYTES])
async def test_lanes_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    monkeypatch.setattr("aggregator.staging._WORTH_LANES_BYTES", least)
    async with running_sink(tmp_path, [meter("tokens", model="$.model")]) as rig:
        for first in range(0, 60, 20):
            texts = [f'{{"tokens": {n}, "model": "m"}}' for n in range(first, first + 30)]
            await send(rig.log, [canonical(text, text) for text in texts])
        await rig.settle()
        assert sorted((await rig.totals()).values()) == [(str(sum(range(70))), 70)]
