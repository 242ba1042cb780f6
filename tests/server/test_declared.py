from typing import Any

import pytest
from pydantic import ValidationError as PydanticError

from meterline.kernel.errors import ValidationError
from meterline.kernel.meters import MeterSpec
from meterline.server.declared import (
    DeclaredMeter,
    ExistingMeter,
    creation_body,
    declared_specs,
    describe_changes,
    plan_changes,
    update_body,
)

TOKENS: dict[str, Any] = {
    "slug": "tokens",
    "aggregation": "SUM",
    "eventType": "request",
    "valueProperty": "$.tokens",
    "groupBy": {"model": "$.model"},
}


def spec(**changes: Any) -> MeterSpec:
    return DeclaredMeter(**{**TOKENS, **changes}).spec()


def existing(**changes: Any) -> MeterSpec:
    """As the API shows a meter."""
    shown = {"id": "01J", "name": "tokens", "metadata": {}, "createdAt": "2026-01-01T00:00:00Z"}
    return ExistingMeter(**{**shown, **TOKENS, **changes}).spec()


def test_what_is_as_declared_needs_nothing() -> None:
    assert plan_changes([spec()], [existing()]) == []
    assert plan_changes([spec(valueProperty="$['tokens']")], [existing()]) == []


def test_a_missing_meter_is_created_and_others_are_left_alone() -> None:
    (change,) = plan_changes([spec()], [existing(slug="other")])
    assert (change.kind, change.spec) == ("create", spec())
    assert creation_body(change.spec) == {**TOKENS, "name": spec().name, "metadata": {}}
    assert list(describe_changes([change])) == ["+ meter tokens: SUM of $.tokens over 'request'"]


def test_what_can_change_is_updated() -> None:
    declared = spec(groupBy={"tier": "$.tier"}, description="All of them")
    (change,) = plan_changes([declared], [existing()])
    assert change.kind == "update"
    assert update_body(change.spec) == {
        "name": spec().name,
        "description": "All of them",
        "groupBy": {"tier": "$.tier"},
        "metadata": {},
    }
    assert list(describe_changes([change])) == [
        "~ meter tokens",
        "    description: none -> All of them",
        "    groupBy: {'model': '$.model'} -> {'tier': '$.tier'}",
    ]


def test_a_group_that_is_no_longer_declared_goes() -> None:
    (change,) = plan_changes([spec(groupBy={})], [existing()])
    assert change.fields == {"group_by": ({"model": "$.model"}, {})}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("aggregation", "MAX"),
        ("eventType", "other"),
        ("valueProperty", "$.other"),
        ("eventFrom", "2026-01-01T00:00:00Z"),
    ],
)
def test_what_makes_it_another_meter_is_a_replacement(field: str, value: str) -> None:
    (change,) = plan_changes([spec(**{field: value})], [existing()])
    assert change.kind == "replace"
    assert next(describe_changes([change])) == "! meter tokens"


def test_event_from_is_compared_as_an_instant() -> None:
    declared = spec(eventFrom="2026-01-01T01:00:00+01:00")
    assert plan_changes([declared], [existing(eventFrom="2026-01-01T00:00:00Z")]) == []


def test_every_bad_declaration_is_named() -> None:
    bad = [DeclaredMeter(**{**TOKENS, **fault}) for fault in ({}, {}, {"slug": "NO"})]
    with pytest.raises(ValidationError) as caught:
        declared_specs(bad)
    assert [error.where for error in caught.value.errors] == ["meters[1]", "meters[2]"]


@pytest.mark.parametrize("wrong", [{"group_bye": {}}, {"slug": None}, {"eventFrom": "2026-01-01"}])
def test_a_declaration_has_no_other_fields(wrong: dict[str, Any]) -> None:
    with pytest.raises(PydanticError):
        DeclaredMeter(**{**TOKENS, **wrong})
