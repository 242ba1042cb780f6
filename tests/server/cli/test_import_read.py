"""Files are read record by record, whatever their format and compression."""

import gzip
import io
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from meterline.server.cli import import_read
from meterline.server.cli.import_read import (
    guess_format,
    json_array_records,
    mapped_rows,
    ndjson_records,
    open_source,
)
from meterline.server.cli.import_rows import RowError, RowMapping

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.text(), json_values, max_size=3)


class Trickle(io.BytesIO):
    """Gives one to three bytes at a time."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(1 + self.tell() % 3)


@given(st.lists(objects, max_size=4), st.booleans(), st.sampled_from([None, 2]))
def test_an_array_is_read_in_pieces(values: list[object], ascii_only: bool, indent: int) -> None:
    text = json.dumps(values, ensure_ascii=ascii_only, indent=indent)
    records = list(json_array_records(Trickle(text.encode("utf-8", "surrogatepass"))))
    assert [json.loads(record) for _, record in records] == values


def test_objects_without_an_array_are_read_too() -> None:
    records = list(json_array_records(io.BytesIO(b'{\n"a": 1}\n{}{"b":2}')))
    assert [(line, json.loads(record)) for line, record in records] == [
        (2, {"a": 1}),
        (3, {}),
        (3, {"b": 2}),
    ]


def test_surrogates_are_not_text() -> None:
    with pytest.raises(RowError):
        list(json_array_records(io.BytesIO(b'[{"a":"\xed\xa0\x80"}]')))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "expected ["),
        ("[", "expected an object"),
        ("[1]", "expected an object"),
        ('[{"a":1}', "expected , or ]"),
        ('[\n{"a":1}\n{"a":1}]', "line 3: expected , or ]"),
        ('[{"a":NaN}]', "not JSON"),
        ('[{"a":]', "not JSON"),
        ("[{}] x", "something follows"),
    ],
)
def test_a_broken_array_says_where(text: str, reason: str) -> None:
    with pytest.raises(RowError, match=reason.replace("[", "\\[")):
        list(json_array_records(io.BytesIO(text.encode())))


def test_an_element_without_end_stops_at_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_read, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(import_read, "_CHUNK", 100)
    endless = io.BytesIO(b'[{"a":"' + b"x" * 1_000_000)
    with pytest.raises(RowError, match="longer"):
        list(json_array_records(endless))
    assert endless.tell() < 10_000


def test_lines_keep_their_numbers() -> None:
    records = list(ndjson_records(io.BytesIO(b'\xef\xbb\xbf{"a":1}\n\n {"b":2}\r\n\xff\n{"c":3}')))
    assert [(line, str(record)) for line, record in records] == [
        (1, '{"a":1}'),
        (3, '{"b":2}'),
        (4, "not UTF-8: invalid start byte"),
        (5, '{"c":3}'),
    ]


def test_a_csv_row_over_several_lines_is_one_row() -> None:
    stream = io.BytesIO(b'\xef\xbb\xbfn,text\n1,"a\nb"\n\n2,c\n3\n')
    rows = list(mapped_rows(stream, "csv", RowMapping(type="t", id_columns=("n",))))
    assert [line for line, _ in rows] == [3, 5, 6]
    assert '"text":"a\\nb"' in str(rows[0][1])
    assert isinstance(rows[2][1], RowError)


def test_a_csv_cell_that_is_too_long_fails_its_row_only() -> None:
    stream = io.BytesIO(b"n\n" + b"1" * 200_000 + b"\n2\n")
    rows = list(mapped_rows(stream, "csv", RowMapping(type="t", id_columns=("n",))))
    assert isinstance(rows[0][1], RowError)
    assert '"id":"2"' in str(rows[-1][1])


@pytest.mark.parametrize("file_format", ["csv", "ndjson", "json"])
def test_rows_that_are_done_are_skipped(file_format: import_read.Format) -> None:
    text = {
        "csv": "n\n1\n2\n3\n",
        "ndjson": '{"n":1}\n{"n":2}\n{"n":3}\n',
        "json": '[{"n":1},{"n":2},{"n":3}]',
    }[file_format]
    mapping = RowMapping(type="t", source="s")

    def read(skip: int) -> list[import_read.MappedRow]:
        return list(mapped_rows(io.BytesIO(text.encode()), file_format, mapping, skip=skip))

    assert read(2) == read(0)[2:]


@pytest.mark.parametrize("packing", ["plain", "gz", "zst"])
def test_compression_is_seen_by_the_content(tmp_path: Path, packing: str) -> None:
    content = b'{"id":"1"}\n' * 100_000
    packed = {
        "plain": content,
        "gz": gzip.compress(content[:500_005]) + gzip.compress(content[500_005:]),
        "zst": zstandard.compress(content),
    }[packing]
    path = tmp_path / "events"
    path.write_bytes(packed)
    source = open_source(path)
    assert guess_format(path.name, source.first_bytes()) == "ndjson"
    assert source.stream.read() == content
    assert source.position() == source.size == len(packed)
    source.close()


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.csv", b"{", "csv"),
        ("a.TSV.gz", b"", "csv"),
        ("a.jsonl.zst", b"[", "ndjson"),
        ("a.json", b"\xef\xbb\xbf \n[", "json"),
        ("a", b"\xef\xbb\xbf \n[", "json"),
        ("a", b"{", "ndjson"),
        ("a", b"x,y", "csv"),
    ],
)
def test_the_format_is_guessed(name: str, head: bytes, expected: str) -> None:
    assert guess_format(name, head) == expected
