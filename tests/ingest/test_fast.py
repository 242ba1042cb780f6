"""The fast reader says nothing that the exact reader does not say, and it does say something."""

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.exact import ExactReader
from ingest.fast import FastReader
from ingest.faults import InvalidEventsError
from ingest.limits import IngestLimits
from meterline.kernel.errors import MeterlineError
from tests.ingest.messages import dump, event

LIMITS = [
    IngestLimits(),
    IngestLimits(require_subject=False),
    IngestLimits(max_depth=3, max_members=6, max_number_digits=20, max_attribute_length=40),
]

texts = st.one_of(
    st.sampled_from(["", "a", "é", "\x7f", "\x85", "\u200b", "\ufffe", '"', "\\", "a b", "x" * 41]),
    st.text(max_size=5),
)
times = st.one_of(
    st.datetimes().map(lambda time: time.isoformat() + "Z"),
    st.sampled_from(
        [
            "2024-01-01T24:00:00Z",
            "2024-01-01T23:59:60Z",
            "2016-12-31T23:59:60Z",
            "2024-01-01T00:00:00+00:00",
            "2024-01-01T00:00:00.123456-09:30",
            "2024-01-01T00:00:00+01:60",
            "2024-01-01T00:00:00+24:00",
            "1900-01-01T00:00:00+00:01",
            "2199-12-31T23:59:59.999999Z",
            "2024-02-30T00:00:00Z",
            "2024-01-01t00:00:00z",
            "2024-01-01T00:00:00.1234567890Z",
            "2024-01-01 00:00:00Z",
            "0001-01-01T00:00:00Z",
        ]
    ),
    texts,
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), texts)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
members = {
    "id": st.just("1") | texts | scalars,
    "source": st.sampled_from(["/s", "a b", "http://h/%41", "%", "1:2"]) | texts,
    "type": st.just("t") | texts,
    "subject": st.just("c") | texts | scalars,
    "specversion": st.sampled_from(["1.0", "1.0", "1.0", "0.3", 1.0, None]),
    "time": times,
    "datacontenttype": st.sampled_from(["application/json", "text/plain", "json", ""]),
    "data": values,
    "data_base64": st.sampled_from(["", "TWE=", "TWE"]),
    "ext": scalars,
}
odd_events = st.fixed_dictionaries({}, optional=members)
good_events = st.fixed_dictionaries(
    {"specversion": st.just("1.0"), "id": st.just("1") | texts, "source": st.just("/s")}
    | {"type": st.just("t"), "subject": st.just("c")},
    optional={"time": times, "data": st.dictionaries(texts, values, max_size=4)},
)
events = st.one_of(good_events, good_events, odd_events, values)


def encode(value: Any, style: int) -> bytes:
    text = json.dumps(
        value,
        separators=(",", ":") if style & 1 else None,
        ensure_ascii=bool(style & 2),
        indent=1 if style & 4 else None,
    )
    return text.encode("utf-8", "surrogatepass")


@cache
def fast_reader(limits: IngestLimits) -> FastReader:
    return FastReader(limits)


def exact_verdict(limits: IngestLimits, body: bytes, batch: bool, lenient: bool) -> Any:
    try:
        return ExactReader(limits).read(body, batch=batch, lenient=lenient)
    except MeterlineError as error:
        return error


def hold_together(limits: IngestLimits, body: bytes, batch: bool, lenient: bool) -> Any:
    fast = fast_reader(limits).read(body, batch=batch, lenient=lenient)
    exact = exact_verdict(limits, body, batch, lenient)
    if fast is not None:
        assert fast == exact
    return exact


@settings(max_examples=600, deadline=None)
@given(
    st.lists(events, max_size=4),
    st.integers(0, 7),
    st.sampled_from(LIMITS),
    st.booleans(),
    st.booleans(),
)
def test_what_the_fast_reader_accepts_the_exact_one_accepts_alike(
    batch: list[Any], style: int, limits: IngestLimits, lenient: bool, single: bool
) -> None:
    value: Any = batch[0] if single and batch else batch
    exact = hold_together(limits, encode(value, style), value is batch, lenient)
    assert not isinstance(exact, InvalidEventsError) or exact.faults


@settings(max_examples=600, deadline=None)
@given(st.data(), st.lists(good_events, min_size=1, max_size=3), st.integers(0, 7))
def test_mutated_bytes(data: st.DataObject, batch: list[Any], style: int) -> None:
    """Cut, doubled and changed bytes: repeated members and broken JSON come out of these."""
    body = bytearray(encode(batch, style))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = min(len(body), start + data.draw(st.integers(0, 30)))
        part = bytes(body[start:end])
        body[start:end] = data.draw(
            st.sampled_from([b"", part * 2, b'"', b"\\u0022", b",", b"{", b"}", b"\xff", b" "])
            | st.binary(max_size=3)
        )
    hold_together(LIMITS[0], bytes(body), True, False)


@settings(max_examples=300, deadline=None)
@given(st.lists(odd_events, max_size=3), st.integers(0, 7))
def test_the_exact_reader_agrees_with_pythons_json(batch: list[Any], style: int) -> None:
    """A second opinion on the JSON itself, and that no data is changed."""
    accepted = exact_verdict(LIMITS[1], encode(batch, style), True, True)
    if isinstance(accepted, MeterlineError):
        return
    for sent, kept in zip(batch, json.loads(accepted.events), strict=True):
        if "data" in sent and sent["data"] is not None:
            assert sent["data"] == (json.loads(kept["_raw"]) if "_raw" in kept else kept["data"])
        for name in ("id", "source", "type", "subject", "data_base64"):
            assert sent.get(name) == kept.get(name)


@pytest.mark.parametrize("style", range(8))
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data": {"tokens": 1.5, "model": "é\n"}},
        {"time": "2026-11-20T10:00:00Z", "datacontenttype": "application/json"},
        {"time": "2026-11-20T10:00:00.123+05:30", "data": {}},
        {"data": {"text": "x" * 5000, "n": [1, 2, 3], "d": {"e": {}}}},
        {"data": {"digits": "1234567890" * 30, "list": list(range(300))}},
    ],
)
def test_ordinary_events_take_the_fast_way(changes: dict[str, Any], style: int) -> None:
    batch = [event(id=str(number), **changes) for number in range(5)]
    found = FastReader(LIMITS[0]).read(encode(batch, style), batch=True, lenient=False)
    assert found is not None
    assert found.count == 5


def test_events_of_different_shapes_in_one_batch_take_the_fast_way() -> None:
    batch = [
        event(time="2026-11-20T10:00:00Z"),
        event(data={}),
        event(time="2026-11-20T10:00:00.5+00:00", data={"a": 1}),
    ]
    assert FastReader(LIMITS[0]).read(dump(batch), batch=True, lenient=False) is not None


def test_the_memory_of_sources_is_bounded() -> None:
    reader = FastReader(LIMITS[0])
    for start in range(0, 25_000, 500):
        batch = [event(source=f"/s{number}") for number in range(start, start + 500)]
        assert reader.read(dump(batch), batch=True, lenient=False) is not None
        assert len(reader._sources) <= 10_000
