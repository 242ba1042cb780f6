"""Rows become events without loss: numbers as text, ids from content, times as RFC 3339."""

import csv
import io
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.server.cli.import_rows import (
    RowError,
    RowMapping,
    csv_mapper,
    json_value,
    object_mapper,
    row_id,
    time_text,
)

AZURE = RowMapping(
    type="llm.request",
    source="import:azure",
    subject_column="service",
    time_column="timestamp",
    id_columns=("service", "row"),
    data_columns=("context_tokens", "generated_tokens"),
)
HEADER = ["service", "row", "timestamp", "context_tokens", "generated_tokens"]


def test_a_csv_row_becomes_one_event() -> None:
    event = csv_mapper(AZURE, HEADER)(1, ["code", "0", "2023-11-16 18:17:03.9799600", "4808", "10"])
    assert json.loads(event) == {
        "specversion": "1.0",
        "id": "code:0",
        "source": "import:azure",
        "type": "llm.request",
        "subject": "code",
        "time": "2023-11-16T18:17:03.9799600Z",
        "data": {"context_tokens": 4808, "generated_tokens": 10},
    }


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("0", "0"),
        ("-12.50", "-12.50"),
        ("1e400", "1e400"),
        ("12345678901234567890.123456789012345678", "12345678901234567890.123456789012345678"),
        ("007", '"007"'),
        ("+1", '"+1"'),
        (".5", '".5"'),
        ("1.", '"1."'),
        ("NaN", '"NaN"'),
        ("٣", '"٣"'),
        ("", '""'),
        ("1 ", '"1 "'),
        ('a"b\\c\n', '"a\\"b\\\\c\\n"'),
    ],
)
def test_a_cell_is_a_number_only_when_json_says_so(cell: str, text: str) -> None:
    assert json_value(cell) == text


@given(st.text())
def test_any_cell_survives_as_json(cell: str) -> None:
    value = json.loads(json_value(cell), parse_float=str, parse_int=str)
    assert value == cell


@pytest.mark.parametrize(
    ("value", "time_format", "text"),
    [
        ("2023-11-16 18:17:03.9799600", "auto", "2023-11-16T18:17:03.9799600Z"),
        ("2023-11-16T18:17:03Z", "auto", "2023-11-16T18:17:03Z"),
        ("2023-11-16T18:17:03+0100", "auto", "2023-11-16T18:17:03+01:00"),
        ("2023-11-16 18:17:03 UTC", "auto", "2023-11-16T18:17:03Z"),
        ("2023-11-16 18:17", "auto", "2023-11-16T18:17:00Z"),
        ("2023-11-16", "auto", "2023-11-16T00:00:00Z"),
        ("1700000000", "auto", "2023-11-14T22:13:20Z"),
        ("1700000000.1234567", "unix", "2023-11-14T22:13:20.1234567Z"),
        ("1700000000123", "unix_ms", "2023-11-14T22:13:20.123Z"),
        ("1700000000000001", "unix_us", "2023-11-14T22:13:20.000001Z"),
        ("1700000000000000001", "unix_ns", "2023-11-14T22:13:20.000000001Z"),
        ("-1", "unix_ms", "1969-12-31T23:59:59.999Z"),
        ("16/11/2023 18:17", "%d/%m/%Y %H:%M", "2023-11-16T18:17:00Z"),
        ("16/11/2023 18:17 +0200", "%d/%m/%Y %H:%M %z", "2023-11-16T16:17:00Z"),
    ],
)
def test_times_become_rfc_3339(value: str, time_format: str, text: str) -> None:
    assert time_text(value, time_format) == text


@pytest.mark.parametrize(
    ("value", "time_format"),
    [("", "auto"), ("soon", "auto"), ("-1.5", "unix"), ("9" * 20, "unix"), ("x", "%Y")],
)
def test_a_time_that_is_not_understood_is_the_rows_fault(value: str, time_format: str) -> None:
    with pytest.raises(RowError):
        time_text(value, time_format)


@given(st.lists(st.text(), min_size=2, max_size=3), st.lists(st.text(), min_size=2, max_size=3))
def test_distinct_columns_have_distinct_ids(left: list[str], right: list[str]) -> None:
    assert (row_id(left) == row_id(right)) == (left == right)


def test_a_row_without_id_columns_is_known_by_its_place_and_content() -> None:
    mapping = RowMapping(type="t", source="s", subject="a")
    event = csv_mapper(mapping, ["n"])
    first, again, second = (json.loads(event(at, ["1"]))["id"] for at in (1, 1, 2))
    assert first == again != second
    other = csv_mapper(RowMapping(type="t", source="s", subject="b"), ["n"])
    assert json.loads(other(1, ["1"]))["id"] != first


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (["code", "0"], "2 cells"),
        (["", "", "2023-11-16", "1", "1"], "id columns are empty"),
        (["code", "0", "never", "1", "1"], "never"),
    ],
)
def test_a_bad_row_says_why(cells: list[str], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        csv_mapper(AZURE, HEADER)(1, cells)


def test_a_header_that_does_not_fit_is_refused() -> None:
    with pytest.raises(RowError, match="no column 'service'"):
        csv_mapper(AZURE, ["row"])
    with pytest.raises(RowError, match="same name"):
        csv_mapper(AZURE, ["row", "row"])


def test_a_cloudevent_passes_verbatim() -> None:
    text = '{"id":"1","source":"s","type":"t","data":{"n":0.10000000000000000000001}}'
    assert object_mapper(RowMapping())(1, text) is text


def test_a_cloudevent_without_id_gets_one() -> None:
    event = json.loads(object_mapper(RowMapping())(1, ' {"source":"s","type":"t"}'))
    assert len(event["id"]) == 32
    assert event["source"] == "s"


def test_an_object_is_mapped_with_its_numbers_verbatim() -> None:
    mapping = RowMapping(type="t", source="s", subject_column="who", id_columns=("n",))
    event = object_mapper(mapping)(1, '{"n":1.50,"who":"a","tokens":123456789012345678901,"x":[1]}')
    assert '"tokens":123456789012345678901' in event
    values = json.loads(event, parse_float=Decimal)
    assert values["id"] == "1.50"
    assert values["data"] == {"tokens": 123456789012345678901, "x": [1]}


@pytest.mark.parametrize("text", ["[1]", "1", "{", '{"a":1}', '{"type":"t","a":nan}'])
def test_what_is_not_an_event_is_refused(text: str) -> None:
    with pytest.raises(RowError):
        object_mapper(RowMapping())(1, text)


@given(st.lists(st.lists(st.text(), min_size=2, max_size=2), min_size=1, max_size=5))
def test_every_csv_row_is_a_json_object(rows: list[list[str]]) -> None:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    event = csv_mapper(RowMapping(type="t"), ['a"', "%s{"])
    for number, row in enumerate(rows, start=1):
        data = json.loads(event(number, row), parse_float=str, parse_int=str)["data"]
        assert list(data.values()) == row
