"""The shared conformance cases, each played over the pure core."""

import json
from decimal import Decimal
from typing import Any

import pytest

from tests.entitlements.balance.player import Player
from tests.support.shared import shared_path


def cases() -> list[dict[str, Any]]:
    try:
        path = shared_path("cases/entitlements.json")
    except pytest.skip.Exception:
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text(), parse_float=Decimal)["cases"]
    return found


@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
def test_case(case: dict[str, Any]) -> None:
    assert case["kind"] == "flow"
    assert Player(case).play() == []


def test_the_cases_are_here() -> None:
    shared_path("cases/entitlements.json")
    assert len(cases()) >= 19
