"""Canonical events become records of Kafka and come back the same."""

import json
from typing import Any
from zlib import crc32

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.kafka import KafkaCodec
from ingest.limits import IngestLimits
from ingest.parse import Parser
from meterline.eventlog.kafka_codec import Decoded, UnreadableRecordError
from meterline.kernel.errors import MeterlineError
from tests.ingest.messages import BATCH, PLAIN, dump, event
from tests.ingest.test_fast import encode, events

LIMITS = IngestLimits(require_subject=False)
CODEC = KafkaCodec(LIMITS)
PARSER = Parser(LIMITS)
HEADERS = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
namespaces = st.sampled_from(["default", "é", 'a"b', "\\"])
extended = st.builds(
    lambda found, more: {**found, **more},
    st.fixed_dictionaries({"id": st.text("ab\u00e9", min_size=1, max_size=3)}).map(
        lambda changes: event(**changes)
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "data": st.none() | st.booleans() | st.text(max_size=4) | st.lists(st.integers()),
            "dataschema": st.just("urn:x"),
            "tenantid": st.text("x\u00e9", max_size=2) | st.integers(-9, 9) | st.booleans(),
            "flag": st.booleans(),
            "time": st.just("2026-11-20T10:00:00+02:00"),
            "specversion": st.just("1.0"),
        },
    ),
)
binary = st.builds(lambda number: event(id=str(number), data_base64="TWE="), st.integers())
sent = st.lists(st.one_of(events, extended, binary), min_size=1, max_size=12)


def accepted(found: list[Any], style: int) -> bytes | None:
    """The canonical batch of what a client may send; None when it is refused."""
    try:
        return PARSER.parse([], PLAIN, encode(found, style)).events
    except MeterlineError:
        return None


def alone(namespace: str, value: bytes) -> Decoded | None:
    try:
        return CODEC.decode(namespace, HEADERS, None, value)
    except UnreadableRecordError:
        return None


@settings(max_examples=400)
@given(sent, st.integers(0, 7), namespaces)
def test_what_was_accepted_comes_back_the_same(
    found: list[Any], style: int, namespace: str
) -> None:
    good = [one for one in found if accepted([one], style) is not None]
    canonical = accepted(good, style) if good else None
    if canonical is None:
        return
    values, hashes = CODEC.encode(namespace, canonical)
    assert len(values) == len(hashes) == len(good)
    back = [CODEC.decode(namespace, HEADERS, b"key", value) for value in values]
    assert b"[" + b",".join(one.events[1:-1] for one in back) + b"]" == canonical
    assert [one.hashes[0] for one in back] == hashes
    for value, one in zip(values, back, strict=True):
        assert json.loads(value)["specversion"] == "1.0"
        assert one.count == 1


@settings(max_examples=400)
@given(st.lists(st.one_of(events, extended, st.just({"x": 1})), max_size=24), st.integers(0, 7))
@example([event(), event(id="2")], 0)
def test_many_records_are_read_as_each_of_them_alone(found: list[Any], style: int) -> None:
    values = [encode(one, style) for one in found]
    assert_same("default", values)


def assert_same(namespace: str, values: list[bytes]) -> None:
    at = 0
    for run in CODEC.decode_many(namespace, values):
        if run is None:
            at += 1
            continue
        parts = [alone(namespace, value) for value in values[at : at + run.count]]
        assert all(parts)
        joined = b",".join(part.events[1:-1] for part in parts if part)
        assert b"[" + joined + b"]" == run.events
        assert [part.hashes[0] for part in parts if part] == list(run.hashes)
        at += run.count
    assert at == len(values)


def test_values_that_are_events_only_when_joined_are_none() -> None:
    one, two, three = (dump(event(id=str(number))) for number in range(3))
    cut = [one + b"," + two[:-20], two[-20:] + b"," + three]
    for values in ([one + b"," + two, three], cut, [one[:9], one[9:]], [b"", one], [one, b"null"]):
        for run in CODEC.decode_many("default", values):
            assert run is None
        assert_same("default", values)


def test_one_odd_record_costs_the_others_nothing() -> None:
    values = [dump(event(id=str(number))) for number in range(1000)]
    values[500] = dump(event(ext="x"))
    runs = CODEC.decode_many("default", values)
    assert sum(run.count for run in runs if run) > 990
    assert_same("default", values)


def test_the_hash_is_that_of_the_key() -> None:
    canonical = PARSER.parse([], BATCH, dump([event(id='é"1', source="/s"), event(id="2")])).events
    values, hashes = CODEC.encode("ns", canonical)
    keys = [["ns", "/s", 'é"1'], ["ns", "/s", "2"]]
    texts = [json.dumps(key, separators=(",", ":"), ensure_ascii=False) for key in keys]
    assert hashes == [crc32(text.encode()) for text in texts]
    assert list(CODEC.decode_many("ns", values)[0].hashes) == hashes  # type: ignore[union-attr]


def test_a_binary_record_of_another_producer() -> None:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"1"),
        ("ce_source", b"/s"),
        ("ce_type", b"t"),
        ("ce_subject", b"c"),
        ("content-type", b"application/json"),
        ("other", None),
    ]
    found = CODEC.decode("default", headers, b"key", b'{"n": 1}')
    expected = event(specversion=None, data={"n": 1}, datacontenttype="application/json")
    assert json.loads(found.events) == [expected]
    with pytest.raises(UnreadableRecordError, match="specversion: is missing; id: is missing"):
        CODEC.decode("default", headers[2:], None, b"{}")
    with pytest.raises(UnreadableRecordError):
        CODEC.decode("default", HEADERS, None, None)


@pytest.mark.parametrize(
    ("types", "accepted"),
    [
        ([("content-type", b"text/plain"), ("ce_datacontenttype", b"text/plain")], True),
        ([("ce_datacontenttype", b"text/plain")], True),
        ([("content-type", b"text/plain"), ("ce_datacontenttype", b"text/html")], False),
        ([("ce_datacontenttype", b"text/plain")] * 2, False),
    ],
)
def test_a_content_type_that_is_given_twice(types: list[tuple[str, bytes]], accepted: bool) -> None:
    attributes = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "c"}
    headers = [*types, *((f"ce_{name}", text.encode()) for name, text in attributes.items())]
    if not accepted:
        with pytest.raises(UnreadableRecordError, match="datacontenttype"):
            CODEC.decode("default", headers, None, b"x")
        return
    [found] = json.loads(CODEC.decode("default", headers, None, b"x").events)
    assert found["datacontenttype"] == "text/plain"
    assert found["_raw"] == '"x"'
