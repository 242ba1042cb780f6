from typing import Any

import pytest

from aggregator.filters import (
    Comparison,
    Either,
    Every,
    Filter,
    FilterLimits,
    Membership,
    matches,
    parse_filter,
)
from meterline.kernel.errors import ValidationError

LIMITS = FilterLimits(max_depth=2, max_nodes=5, max_values=3, max_text_length=10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("a", Comparison("$eq", "a")),
        (["a", "b"], Membership(("a", "b"))),
        ({"$in": ["a"]}, Membership(("a",))),
        ({"$nin": ["a"]}, Membership(("a",), negated=True)),
        ({"$gte": "a", "$lt": "b"}, Every((Comparison("$gte", "a"), Comparison("$lt", "b")))),
        (
            {"$or": ["a", {"$and": [{"$ne": "b"}, {"$like": "c%"}]}]},
            Either(
                (
                    Comparison("$eq", "a"),
                    Every((Comparison("$ne", "b"), Comparison("$like", "c%"))),
                )
            ),
        ),
    ],
)
def test_json_spells_a_tree(given: Any, expected: Filter) -> None:
    assert parse_filter(given, "f", LIMITS) == expected


@pytest.mark.parametrize(
    "given",
    [
        None,
        1,
        True,
        {},
        [],
        [1],
        {"$eq": 1},
        {"$eq": None},
        {"$in": "abc"},
        {"$in": []},
        {"$in": ["a"] * 4},
        {"$and": []},
        {"$and": "a"},
        {"$xor": ["a"]},
        {"a' OR 1=1": "a"},
        {"$eq": "x" * 11},
        {"$eq": "a\0"},
        {"$eq": "\ud800"},
        {"$like": "a\\"},
        {"$ilike": "\\\\\\"},
        {"$and": [{"$and": [{"$and": ["a"]}]}]},
        {"$and": [{"$eq": "a"}, {"$eq": "a"}, {"$or": [{"$eq": "a"}, {"$eq": "a"}]}]},
    ],
)
def test_what_is_no_filter_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_filter(given, "filterGroupBy.f", LIMITS)
    assert caught.value.errors[0].where.startswith("filterGroupBy.f")


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("gpt%", "gpt-4", True),
        ("gpt%", "GPT-4", False),
        ("%4", "gpt-4", True),
        ("g_t", "gpt", True),
        ("g_t", "gt", False),
        ("_", "é", True),
        ("%", "", True),
        ("a%", "a\nb", True),
        ("100\\%", "100%", True),
        ("100\\%", "100 ", False),
        ("a\\_b", "a_b", True),
        ("a\\_b", "axb", False),
        ("a\\\\b", "a\\b", True),
        ("a.c", "abc", False),
    ],
)
def test_like(pattern: str, text: str, expected: bool) -> None:
    assert matches(Comparison("$like", pattern), text) is expected
    assert matches(Comparison("$nlike", pattern), text) is not expected
    assert matches(Comparison("$ilike", pattern.upper()), text) in (True, expected)
