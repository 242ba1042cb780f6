"""`meterline scenario run`: cases played through the whole application, from a shell."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from meterline.kernel.errors import ValidationError
from meterline.server.scenario.cases import read_cases
from tests.support.server import run_cli
from tests.support.shared import shared_path

_PLANS = Path(__file__).with_name("plans.json")
_OPS = {
    "entitlement", "event", "events", "grant", "void", "reset", "value", "history", "override",
    "delete", "advance",
}  # fmt: skip


def run(path: Path, tmp_path: Path) -> tuple[int, list[dict[str, Any]]]:
    done = run_cli("scenario", "run", path, cwd=tmp_path)
    assert done.stdout, done.stderr
    lines = [json.loads(line, parse_float=Decimal) for line in done.stdout.splitlines()]
    return done.returncode, lines


def test_the_shared_cases(tmp_path: Path) -> None:
    path = shared_path("cases/entitlements.json")
    status, results = run(path, tmp_path)
    assert [result for result in results if not result["passed"]] == []
    assert status == 0
    assert [one["id"] for one in results] == [one.id for one in read_cases(path)]
    assert list(tmp_path.iterdir()) == []


def test_our_own_cases(tmp_path: Path) -> None:
    status, results = run(_PLANS, tmp_path)
    wrong = [step for one in results for step in one["steps"] if step["mismatches"]]
    assert wrong == []
    assert status == 0
    assert {step["op"] for one in results for step in one["steps"]} == _OPS
    assert {tuple(one) for one in results} == {("id", "passed", "steps")}
    for step in results[0]["steps"]:
        assert step.keys() in ({"op", "result", "mismatches"}, {"op", "error", "mismatches"})
    value = next(step["result"] for step in results[0]["steps"] if step["op"] == "value")
    # Grants have the names of the file, numbers every digit.
    assert value["grantBalances"]["top-up"] == 400


def case(**changes: Any) -> dict[str, Any]:
    steps = [
        {
            "op": "entitlement",
            "clock": "2026-01-01T00:00:00Z",
            "usagePeriod": {"interval": "MONTH"},
            "issueAfterReset": 5,
        },
        {"op": "value", "expect": {"balance": 5}, **changes},
    ]
    return {"id": "one", "steps": steps}


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "file.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_mismatch_is_told_and_ends_with_1(tmp_path: Path) -> None:
    unknown = "no step before has made a grant other"
    told: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"expect": {"balance": 6}}, {"what": "balance", "expected": 6, "found": 5}),
        ({"expect": {"balnce": 5}}, {"what": "balnce", "expected": 5, "found": None}),
        ({"expect": {"hasAccess": 1}}, {"what": "hasAccess", "expected": 1, "found": True}),
        ({"expectError": "future"}, {"what": "error", "expected": "future", "found": None}),
        (
            {"op": "void", "grant": "other"},
            {"what": "error", "expected": None, "found": unknown},
        ),
    ]
    bad = [{**case(**changes), "id": str(i)} for i, (changes, _) in enumerate(told)]
    status, results = run(written(tmp_path, {"cases": [*bad, case()]}), tmp_path)
    assert status == 1
    assert [one["passed"] for one in results] == [False] * len(bad) + [True]
    for result, (_, mismatch) in zip(results, told, strict=False):
        assert result["steps"][1]["mismatches"] == [mismatch]


def test_one_case_without_a_list(tmp_path: Path) -> None:
    assert run(written(tmp_path, case()), tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "not JSON"), ({"cases": []}, "no cases"), ({"cases": [case(), case()]}, "same id")],
)
def test_what_is_no_file_of_scenarios(tmp_path: Path, content: Any, said: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ValidationError) as caught:
        read_cases(path)
    assert said in str(caught.value.detail)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"id": "a"}, "`steps`"),
        ({"steps": []}, "`clock`"),
        ({"steps": [{"op": "value"}]}, "`clock`"),
        ({"steps": [{"op": "dance"}]}, "`op` must be one of entitlement"),
        ({"steps": [{"op": "event", "clock": "2026-01-01T00:00:00Z"}]}, "`time` is required"),
        ({"steps": [{"op": "value", "clock": "noon"}]}, "`clock` is not"),
        ({"aggregation": "MEAN", "steps": []}, "no such aggregation"),
        (7, "an object"),
    ],
)
def test_what_is_no_scenario(tmp_path: Path, content: Any, said: str) -> None:
    (found,) = read_cases(written(tmp_path, {"cases": [content]}))
    assert said in str(found.fault)


def test_a_case_that_makes_no_sense_does_not_stop_the_others(tmp_path: Path) -> None:
    bad = {"id": "bad", "steps": [{"op": "dance"}]}
    path = written(tmp_path, {"cases": [bad, case()]})
    status, results = run(path, tmp_path)
    assert status == 1
    assert [(one["id"], one["passed"]) for one in results] == [("bad", False), ("one", True)]
    assert "`op` must be" in results[0]["error"]
    assert run_cli("scenario", "plot", path, "-o", tmp_path / "a.html").returncode == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run_cli("scenario", "run", tmp_path / "none.json")
    assert done.returncode == 1
    assert "No such file" in done.stderr
