"""The routes of the client `parmot`, with bodies that the client itself never sends."""

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from meterline.server.kit_plans import ParmotRecords
from tests.entitlements.usage_records.build import Kit, running_kit
from tests.support.database import migrated
from tests.support.planning import Planning

RECORD = {"end_user_id": "ann", "model": "gpt-4o", "prompt_tokens": 10, "completion_tokens": 5}


@pytest_asyncio.fixture
async def kit(tmp_path: Path) -> AsyncIterator[Kit]:
    async with migrated(tmp_path) as database, running_kit(database) as running:
        yield running


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens"])
async def test_counts_that_nothing_can_have_are_refused(bench: Planning, name: str) -> None:
    path = "/api/end-user-usage/record"
    answer = await bench.call("POST", path, {**RECORD, name: 10**13}, 400)
    assert answer["error"].startswith(name)
    await bench.call("POST", path, RECORD, 201)


@pytest.mark.parametrize(
    ("cost", "kept"),
    [
        ("0.25", "0.25"),
        ("5", "5"),
        ('"0.25"', None),
        ('"x\\ud800"', None),
        ("true", None),
        ('{"a": 1}', None),
        ("1e999999999", "1E+999999999"),
    ],
)
async def test_what_the_client_says_of_the_cost_is_kept_as_a_number(
    bench: Planning, kit: Kit, cost: str, kept: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = ParmotRecords(kit.usage)
    monkeypatch.setattr("tests.support.planning.HandRecords.record", _to(recorder))
    body = (
        '{"end_user_id": "ann", "model": "gpt-4o", "prompt_tokens": 10, "completion_tokens": 5,'
        f' "total_cost": {cost}}}'
    )
    await bench.call("POST", "/api/end-user-usage/record", body, 201)
    (record,) = (await kit.call("GET", "/usage"))["items"]
    assert record["metadata"].get("clientTotalCost") == kept
    assert record["costUsd"] == Decimal(10 * 250 + 5 * 1000) / 100_000_000
    assert datetime.fromisoformat(record["time"])


def _to(recorder: ParmotRecords) -> Any:
    async def record(_self: Any, namespace: str, subject: str, **given: Any) -> Decimal | None:
        return await recorder.record(namespace, subject, **given)

    return record
