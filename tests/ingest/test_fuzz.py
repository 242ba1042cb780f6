"""Whatever is sent: an answer of the documented ones, never a 500, and the next request works."""

import gzip
import json
from collections.abc import Sequence

import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.ingest.http import Api
from tests.ingest.messages import BATCH, PLAIN, STRUCTURED, dump, event

DOCUMENTED = {204, 400, 413, 415}

names = st.sampled_from(
    [b"ce-id", b"ce-source", b"ce-type", b"ce-specversion", b"ce-subject", b"ce-time", b"ce-data"]
    + [b"ce-", b"ce-ext", b"content-type", b"content-encoding", b"content-length", b"x-request-id"]
)
header_values = st.one_of(
    st.sampled_from([b"1.0", b"x", b"/s", b"%41", b"%", b'"', b'"a\\"', b"gzip", b"zstd", b"99"]),
    st.sampled_from([STRUCTURED, BATCH, PLAIN, b"text/plain; charset=x", b"2024-01-01T00:00:00Z"]),
    st.binary(max_size=20),
)
headers = st.lists(st.tuples(names, header_values), max_size=8)
content_types = st.sampled_from([STRUCTURED, BATCH, PLAIN, None, b"text/plain", b";", b"a/b;c"])
whole = st.sampled_from(
    [
        dump(event()),
        dump([event(), event(data={"a": [1, {"b": "c"}]}, time="2024-01-01T00:00:00Z")]),
        dump(event(ext="x", dataschema="urn:x", data_base64="TWE=")),
        json.dumps([event(subject="é\U0001f600", data={"x": 1.5})], indent=1).encode(),
        b"[" * 3000 + b"]" * 3000,
        b'{"data":' * 3000,
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    body = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 9))] = draw(st.binary(max_size=6) | st.just(b'"'))
    return bytes(body)


bodies = st.one_of(mutated(), mutated(), st.binary(max_size=200))
packed = st.one_of(bodies, bodies.map(gzip.compress), bodies.map(zstandard.compress))


@settings(max_examples=500, deadline=None)
@given(packed, content_types, headers, st.booleans())
async def test_no_input_makes_a_500(
    body: bytes,
    content_type: bytes | None,
    more: Sequence[tuple[bytes, bytes]],
    in_pieces: bool,
) -> None:
    api = Api()
    arriving = [
        {"type": "http.request", "body": body[:7], "more_body": True},
        {"type": "http.request", "body": body[7:], "more_body": False},
    ]
    answer = await api.post(arriving if in_pieces else body, content_type, more)
    assert answer.status in DOCUMENTED
    stored = await api.stored()
    if answer.status == 204:
        assert answer.body == b""
        for found in stored:
            assert found["id"] and found["source"] and found["type"] and found["subject"]
    else:
        assert stored == []
        problem = answer.problem()
        if answer.status == 400:
            assert problem["extensions"]["validationErrors"]
    assert (await api.post(dump(event()))).status == 204
    api.service.close()
