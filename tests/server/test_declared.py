from typing import Any

import pytest

from meterline.kernel.errors import ValidationError
from meterline.server.declared import describe_changes, plan_changes, update_body

TOKENS: dict[str, Any] = {
    "slug": "tokens",
    "aggregation": "SUM",
    "eventType": "request",
    "valueProperty": "$.tokens",
    "groupBy": {"model": "$.model"},
}
SERVER_FIELDS: dict[str, Any] = {
    "id": "01J",
    "name": "tokens",
    "description": None,
    "metadata": {},
    "createdAt": "2026-01-01T00:00:00Z",
}
EXISTING = {**SERVER_FIELDS, **TOKENS}


def test_what_is_as_declared_needs_nothing() -> None:
    assert plan_changes([TOKENS], [EXISTING]) == []
    assert plan_changes([{**TOKENS, "aggregation": "sum"}], [EXISTING]) == []


def test_a_missing_meter_is_created_and_others_are_left_alone() -> None:
    (change,) = plan_changes([TOKENS], [{**EXISTING, "slug": "other"}])
    assert (change.kind, change.slug, change.document) == ("create", "tokens", TOKENS)
    assert list(describe_changes([change])) == ["+ meter tokens: SUM of $.tokens in 'request'"]


def test_what_can_change_is_updated() -> None:
    declared = {**TOKENS, "groupBy": {"tier": "$.tier"}, "description": "All of them"}
    (change,) = plan_changes([declared], [EXISTING])
    assert change.kind == "update"
    assert set(change.fields) == {"groupBy", "description"}
    assert update_body(change, EXISTING) == {
        "name": "tokens",
        "description": "All of them",
        "groupBy": {"tier": "$.tier"},
        "metadata": {},
    }
    assert list(describe_changes([change])) == [
        "~ meter tokens",
        "    description: None -> 'All of them'",
        "    groupBy: {'model': '$.model'} -> {'tier': '$.tier'}",
    ]


def test_a_group_that_is_no_longer_declared_goes() -> None:
    declared = {name: value for name, value in TOKENS.items() if name != "groupBy"}
    (change,) = plan_changes([declared], [EXISTING])
    assert change.fields == {"groupBy": ({"model": "$.model"}, {})}


@pytest.mark.parametrize("field", ["aggregation", "eventType", "valueProperty"])
def test_what_past_answers_mean_is_a_conflict(field: str) -> None:
    (change,) = plan_changes([{**TOKENS, field: "MAX"}], [EXISTING])
    assert change.kind == "conflict"
    assert "!" in next(describe_changes([change]))


def test_event_from_is_compared_as_an_instant() -> None:
    existing = {**EXISTING, "eventFrom": "2026-01-01T00:00:00Z"}
    assert plan_changes([TOKENS], [existing]) == []
    same = {**TOKENS, "eventFrom": "2026-01-01T01:00:00+01:00"}
    assert plan_changes([same], [existing]) == []
    (change,) = plan_changes([{**TOKENS, "eventFrom": "2025-01-01T00:00:00Z"}], [existing])
    assert change.kind == "conflict"


@pytest.mark.parametrize(
    ("declared", "fault"),
    [
        ([{}], r"meters\[0\].slug: is missing"),
        ([TOKENS, TOKENS], "declared twice"),
        ([{**TOKENS, "group_by": {}}], r"meters\[0\].group_by: there is no such field"),
        (["tokens"], "must be a mapping"),
    ],
)
def test_a_bad_declaration_is_named(declared: list[Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        plan_changes(declared, [])
