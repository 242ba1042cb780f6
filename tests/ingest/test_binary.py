"""Binary mode over HTTP, and both modes of the Kafka binding."""

import json
from typing import Any

import pytest

from ingest.faults import InvalidEventsError
from ingest.limits import IngestLimits
from ingest.parse import Parser
from meterline.kernel.errors import UnsupportedMediaError
from tests.ingest.messages import dump, event

PARSER = Parser(IngestLimits())
REQUIRED = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}


def http(
    headers: dict[str, str | bytes | None], body: bytes = b"", content_type: bytes | None = None
) -> dict[str, Any]:
    named = {"ce-subject": "c", **REQUIRED, **headers}
    pairs = [
        (name.encode(), value.encode() if isinstance(value, str) else value)
        for name, value in named.items()
        if value is not None
    ]
    if content_type is not None:
        pairs.append((b"content-type", content_type))
    [found] = json.loads(PARSER.parse(pairs, content_type, body).events)
    assert isinstance(found, dict)
    return found


def refused(headers: dict[str, str | bytes | None], body: bytes = b"", **kwargs: Any) -> list[Any]:
    with pytest.raises(InvalidEventsError) as caught:
        http(headers, body, **kwargs)
    return [fault.attribute for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("sent", "subject"),
    [
        ("a%20b", "a b"),
        ("a%2520b", "a%20b"),
        ("%E2%82%AC", "€"),
        ("%e2%82%ac", "€"),
        ('"quoted"', "quoted"),
        ('"a\\"b\\\\c"', 'a"b\\c'),
        ('"%22"', '"'),
        ('a"b', 'a"b'),
        ("€", "€"),
        ("+", "+"),
    ],
)
def test_header_values(sent: str, subject: str) -> None:
    assert http({"ce-subject": sent})["subject"] == subject


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subject", b"%"),
        ("subject", b"%4"),
        ("subject", b"%zz"),
        ("subject", b"%ff"),
        ("subject", b"\xff"),
        ("subject", b"%ED%A0%80"),
        ("subject", b"%7F"),
        ("subject", b'"open'),
        ("subject", b'"a"b'),
        ("subject", b""),
        ("id", b""),
        ("id", None),
        ("source", b"a b"),
        ("type", None),
        ("time", b"yesterday"),
        ("data", b"x"),
        ("data_base64", b"x"),
        ("datacontenttype", b"text/plain"),
        ("my-ext", b"x"),
        ("MyExt", b"x"),
        ("", b"x"),
    ],
)
def test_headers_that_are_refused(name: str, value: bytes | None) -> None:
    assert refused({f"ce-{name}": value}) == [name]


def test_extensions_are_texts() -> None:
    found = http({"ce-n": "5", "ce-b": "true", "ce-e": "", "ce-dataschema": "urn:x"})
    assert found["_ext"] == {"n": "5", "b": "true", "e": "", "dataschema": "urn:x"}


@pytest.mark.parametrize(
    ("content_type", "body", "kept"),
    [
        (b"application/json", b'{"n": 1.0}', {"data": {"n": 1.0}}),
        (b"application/json", b" [1] ", {"_raw": "[1]"}),
        (b"application/json", b"", {}),
        (b"application/vnd.x+json; charset=UTF-8", b"{}", {"data": {}}),
        (b"text/plain", "é".encode(), {"_raw": '"é"'}),
        (b"text/plain; charset=latin-1", b"\xe9", {"data_base64": "6Q=="}),
        (b"application/octet-stream", b"{}", {"data_base64": "e30="}),
        (None, b"{}", {"data_base64": "e30="}),
        (None, b"", {}),
    ],
)
def test_data_by_content_type(
    content_type: bytes | None, body: bytes, kept: dict[str, Any]
) -> None:
    wanted = event(specversion=None, **kept)
    if content_type is not None:
        wanted["datacontenttype"] = content_type.decode()
    assert http({}, body, content_type) == wanted


@pytest.mark.parametrize("body", [b"{", b"\xef\xbb\xbf{}", b'"\xff"', b'"\\ud800"', b"{}{}", b"  "])
def test_json_data_that_is_none(body: bytes) -> None:
    assert refused({}, body, content_type=b"application/json") == ["data"]


def test_limits_hold_for_binary_data() -> None:
    assert refused({}, b"[" * 129 + b"]" * 129, content_type=b"application/json") == ["data"]
    assert refused({"ce-subject": "x" * 2049}) == ["subject"]


def test_all_faults_of_the_headers_are_told() -> None:
    found = refused({"ce-id": "%", "ce-time": "x", "ce-type": None}, content_type=b"json")
    assert sorted(found) == ["datacontenttype", "id", "time", "type"]


def test_a_charset_other_than_utf_8_is_unsupported_for_json() -> None:
    with pytest.raises(UnsupportedMediaError):
        http({}, b"{}", b"application/json; charset=utf-16")


def test_the_content_type_decides_over_the_headers() -> None:
    content_type = b"application/cloudevents+json"
    headers = [(name.encode(), value.encode()) for name, value in REQUIRED.items()]
    accepted = PARSER.parse(headers, content_type, dump(event(id="inside")))
    assert json.loads(accepted.events)[0]["id"] == "inside"


def test_remembered_content_types_do_not_hide_headers() -> None:
    parser = Parser(IngestLimits())
    content_type = b"application/json"
    headers = [(name.encode(), value.encode()) for name, value in REQUIRED.items()]
    for _ in range(2):
        assert parser.parse([], content_type, dump(event())).count == 1
        binary = parser.parse(
            [*headers, (b"ce-subject", b"c"), (b"content-type", content_type)],
            content_type,
            b'{"x":1}',
        )
        assert json.loads(binary.events)[0]["data"] == {"x": 1}


def kafka(headers: dict[str, bytes], value: bytes | None) -> dict[str, Any]:
    [found] = json.loads(PARSER.parse_kafka(list(headers.items()), b"key", value).events)
    assert isinstance(found, dict)
    return found


def test_kafka_records() -> None:
    binary = {
        "ce_specversion": b"1.0",
        "ce_id": b"1",
        "ce_source": b"/s",
        "ce_type": b"t",
        "ce_subject": "%C3%A9é".encode(),
    }
    assert kafka(binary, None) == event(specversion=None, subject="%C3%A9é")
    assert kafka({**binary, "content-type": b"application/json"}, b"{}")["data"] == {}
    structured = {"content-type": b"Application/CloudEvents+JSON; charset=utf-8"}
    assert kafka(structured, dump(event())) == event(specversion=None)
    for headers, value in (
        (structured, b""),
        (structured, None),
        ({"content-type": b"application/cloudevents-batch+json"}, b"[]"),
        ({**binary, "ce_id": b"\xff"}, None),
        ({}, dump(event())),
    ):
        with pytest.raises(InvalidEventsError):
            kafka(headers, value)
    with pytest.raises(UnsupportedMediaError):
        kafka({"content-type": b"application/cloudevents+avro"}, b"")
