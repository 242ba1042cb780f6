from typing import Any

import pytest

from meterline.kernel.errors import ValidationError
from meterline.kernel.meters import Aggregation, MeterSpec, validate_meter

GOOD: dict[str, Any] = {
    "slug": "tokens_in",
    "aggregation": "SUM",
    "event_type": "llm.usage",
    "value_property": '$["tokens"]',
    "group_by": {"model": "$.model", "kind": "$['a-b']"},
}


def meter(**changes: Any) -> MeterSpec:
    return validate_meter(**(GOOD | changes))


def test_a_good_meter_comes_out_in_canonical_form() -> None:
    spec = meter()
    assert spec.name == "tokens_in"
    assert spec.aggregation is Aggregation.SUM
    assert spec.value_property == "$.tokens"
    assert spec.group_by == {"model": "$.model", "kind": "$['a-b']"}
    assert meter(aggregation="COUNT", value_property=None).value_property is None


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"slug": ""}, "slug"),
        ({"slug": "A"}, "slug"),
        ({"slug": "a__b"}, "slug"),
        ({"slug": "a_"}, "slug"),
        ({"slug": "a" * 65}, "slug"),
        ({"slug": "a\n"}, "slug"),
        ({"slug": "01hzzzzzzzzzzzzzzzzzzzzzzz"}, "slug"),
        ({"aggregation": "MEDIAN"}, "aggregation"),
        ({"event_type": ""}, "eventType"),
        ({"event_type": "a\0"}, "eventType"),
        ({"value_property": None}, "valueProperty"),
        ({"value_property": "tokens"}, "valueProperty"),
        ({"aggregation": "COUNT"}, "valueProperty"),
        ({"group_by": {"1a": "$.a"}}, "groupBy.1a"),
        ({"group_by": {"subject": "$.a"}}, "groupBy.subject"),
        ({"group_by": {"a": "$"}}, "groupBy.a"),
        ({"group_by": {"a": "$.tokens"}}, "groupBy.a"),
        ({"group_by": {f"k{n}": f"$.k{n}" for n in range(33)}}, "groupBy"),
        ({"name": ""}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"description": "x" * 1025}, "description"),
        ({"metadata": {"": "x"}}, "metadata"),
        ({"metadata": {"k": "x\0"}}, "metadata"),
    ],
)
def test_each_rule_names_its_field(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        meter(**changes)
    assert [error.where for error in caught.value.errors] == [where]


def test_all_faults_are_listed_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        meter(slug="A", aggregation="X", event_type="")
    assert [error.where for error in caught.value.errors] == ["slug", "aggregation", "eventType"]
