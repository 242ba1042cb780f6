import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.kernel.errors import ValidationError
from meterline.kernel.jsonpath import JsonPath, find, parse_path


@pytest.mark.parametrize(
    ("text", "steps", "canonical"),
    [
        ("$.a.b", ("a", "b"), "$.a.b"),
        ("$.a[0]", ("a", 0), "$.a[0]"),
        ("$['a-b']", ("a-b",), "$['a-b']"),
        ('$["a"]', ("a",), "$.a"),
        ("$['it\\'s']", ("it's",), "$['it\\'s']"),
        ('$["say \\"x\\""]', ('say "x"',), "$['say \"x\"']"),
        ("$['\\ud83d\\ude00']", ("\U0001f600",), "$.\U0001f600"),
        ("$[ 12 ].tokens_in", (12, "tokens_in"), "$[12].tokens_in"),
        ("$['']", ("",), "$['']"),
        ("$.naïve", ("naïve",), "$.naïve"),
    ],
)
def test_paths_have_one_canonical_spelling(
    text: str, steps: tuple[str | int, ...], canonical: str
) -> None:
    assert parse_path(text) == JsonPath(steps)
    assert parse_path(text).text == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "$",
        "a.b",
        "$.",
        "$..a",
        "$.a.",
        "$.1a",
        "$.a-b",
        "$.*",
        "$[*]",
        "$[-1]",
        "$[01]",
        "$[0:2]",
        "$['a]",
        "$[?(@.a)]",
        "$['a'] ",
        "$['\\ud800']",
        "$['a\\u0000b']",
        "$['\\x']",
        "$[99999999999999999999]",
        "$" + ".a" * 33,
        "$." + "a" * 600,
        "$.a; DROP TABLE events",
    ],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_path(text)


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)


@given(st.lists(names | st.integers(0, 1000), min_size=1, max_size=6))
def test_the_canonical_spelling_parses_back(steps: list[str | int]) -> None:
    path = JsonPath(tuple(steps))
    assert parse_path(path.text) == path


@pytest.mark.parametrize(
    ("raw", "path", "found"),
    [
        ('{"a":1}', "$.a", "1"),
        ('{"a":12345678901234567890.100}', "$.a", "12345678901234567890.100"),
        (' { "b" : [1,{"a":2}] , "a" : { "b" : "x}" } } ', "$.a.b", '"x}"'),
        ('{"a":[{"x":"]"},[1,[2]],3]}', "$.a[1]", "[1,[2]]"),
        ('{"a":[{"x":"]"},[1,[2]],3]}', "$.a[2]", "3"),
        ('{"a":[{"x":"]"},[1,[2]],3]}', "$.a[3]", None),
        ('{"a":1,"a":2}', "$.a", "1"),
        ('{"a":1,"a":{"b":2}}', "$.a.b", None),
        ('{"\\u0061":1}', "$.a", "1"),
        ('{"a\\"b":7}', "$['a\"b']", "7"),
        ('{"a":{"0":1}}', "$.a[0]", None),
        ('{"a":[1]}', "$.a['0']", None),
        ('{"a":"b"}', "$.a.b", None),
        ('{"a":null}', "$.a", "null"),
        ('{"a":{}}', "$.a.b", None),
        ("[]", "$[0]", None),
        ('{"a":', "$.a", None),
        ('{"a" 1}', "$.a", None),
        ('{"a":[1,2', "$.a", None),
        ("", "$.a", None),
    ],
)
def test_find_answers_the_raw_text(raw: str, path: str, found: str | None) -> None:
    assert find(raw, parse_path(path)) == found
    assert find(raw.encode(), parse_path(path)) == found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", 'q"', "é"]), inner, max_size=4)
    ),
    max_leaves=12,
)
steps = st.lists(st.sampled_from(["a", "b", 'q"', "é", 0, 1, 2]), min_size=1, max_size=4)


@given(json_values, steps, st.booleans(), st.sampled_from([None, 1]))
def test_find_agrees_with_a_parser(
    value: Any, steps: list[str | int], ascii_only: bool, indent: int | None
) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    expected: Any = value
    for step in steps:
        if isinstance(step, str):
            expected = expected.get(step, ...) if isinstance(expected, dict) else ...
        else:
            inside = isinstance(expected, list) and step < len(expected)
            expected = expected[step] if inside else ...
    found = find(raw, JsonPath(tuple(steps)))
    assert (... if found is None else json.loads(found)) == expected
