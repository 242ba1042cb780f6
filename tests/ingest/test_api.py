"""The endpoint: answers, limits of a request, back-pressure, metrics."""

import asyncio
import gzip
import json
from datetime import datetime

import pytest
import zstandard
from prometheus_client import CollectorRegistry, generate_latest

from ingest.limits import IngestLimits
from meterline.eventlog.memory import MemoryLog
from meterline.kernel.errors import UnavailableError
from meterline.web.asgi import Message
from tests.ingest.http import NOW, Answer, Api
from tests.ingest.messages import BATCH, PLAIN, dump, event


def part(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_events_are_stored_before_the_answer() -> None:
    api = Api()
    answer = await api.post(dump([event(id="1", data={"n": 1}), event(id="2")]), BATCH)
    assert answer == Answer(204, {}, b"")
    [record] = await api.log.read(0, 0, 10)
    assert (record.namespace, record.count, record.ingested_at) == ("default", 2, NOW)
    assert [found["id"] for found in json.loads(record.events)] == ["1", "2"]
    assert record.events == (
        b'[{"id":"1","source":"/s","type":"t","subject":"c","data":{"n":1}},'
        b'{"id":"2","source":"/s","type":"t","subject":"c"}]'
    )


async def test_the_namespace_is_the_callers() -> None:
    api = Api()
    assert (
        await api.post(dump(event()), headers=[(b"authorization", b"Bearer sender")])
    ).status == 204
    [record] = await api.log.read(0, 0, 10)
    assert record.namespace == "tenant"


@pytest.mark.parametrize(
    ("authorization", "status"), [(b"Bearer nobody", 401), (b"Bearer reader", 403), (b"\xff", 401)]
)
async def test_callers_without_the_right_are_refused(authorization: bytes, status: int) -> None:
    api = Api()
    answer = await api.post(dump(event()), headers=[(b"authorization", authorization)])
    assert answer.status == status
    answer.problem()
    assert await api.stored() == []


@pytest.mark.parametrize("source", ["meterline:holds", "meterline:", "meterline:usage"])
async def test_callers_cannot_write_the_servers_own_events(source: str) -> None:
    api = Api()
    for sent in ([event(source=source)], [event(), event(source=source, note="exact reader")]):
        answer = await api.post(dump(sent), BATCH)
        assert answer.status == 400
        assert "meterline:" in answer.problem()["detail"]
    assert await api.stored() == []


async def test_an_empty_batch_stores_nothing() -> None:
    api = Api()
    assert (await api.post(b"[]", BATCH)).status == 204
    assert await api.log.end(0) == 0


async def test_one_bad_event_refuses_the_batch_and_all_bad_ones_are_told() -> None:
    api = Api(IngestLimits(max_reported_errors=2))
    batch = [event(), event(id=None), event(time="x"), event(), event(ext=[])]
    answer = await api.post(dump(batch), BATCH)
    assert answer.status == 400
    extensions = answer.problem()["extensions"]
    assert extensions["totalErrors"] == 3
    assert extensions["validationErrors"] == [
        {"index": 1, "attribute": "id", "reason": "is missing", "where": "events[1].id"},
        {
            "index": 2,
            "attribute": "time",
            "reason": "must be an RFC 3339 timestamp",
            "where": "events[2].time",
        },
    ]
    assert await api.stored() == []


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        (b"gzip", gzip.compress(dump(event()))),
        (b"zstd", zstandard.compress(dump(event()))),
        (b"identity", dump(event())),
    ],
    ids=["gzip", "zstd", "identity"],
)
async def test_content_codings(coding: bytes, packed: bytes) -> None:
    api = Api()
    assert (await api.post(packed, headers=[(b"content-encoding", coding)])).status == 204
    assert len(await api.stored()) == 1


async def test_codings_that_fail() -> None:
    api = Api(IngestLimits(max_decompressed_bytes=1000))
    gzip_header = [(b"content-encoding", b"gzip")]
    assert (await api.post(dump(event()), headers=gzip_header)).status == 400
    bomb = gzip.compress(bytes(100_000))
    assert (await api.post(bomb, headers=gzip_header)).status == 413
    assert (await api.post(b"", headers=[(b"content-encoding", b"br")])).status == 415
    twice = await api.post(bomb, headers=gzip_header * 2)
    assert twice.status == 415


async def test_media_types_that_are_not_read() -> None:
    api = Api()
    for content_type in (None, b"text/html", b"application/cloudevents+avro"):
        assert (await api.post(dump(event()), content_type)).status == 415
    assert (await api.post(dump(event()), headers=[(b"content-type", PLAIN)])).status == 415


async def test_the_size_of_a_body_at_its_edge() -> None:
    body = dump(event())
    fits, too_small = IngestLimits(max_body_bytes=len(body)), IngestLimits(max_body_bytes=10)
    pieces = [part(body[:9]), part(b""), part(body[9:20]), part(body[20:], more=False)]
    assert (await Api(fits).post(body)).status == 204
    assert (await Api(fits).post(pieces)).status == 204
    declared = [(b"content-length", b"%d" % len(body))]
    for answer in (
        await Api(too_small).post(body),
        await Api(too_small).post(pieces),
        # Refused before a byte is read.
        await Api(too_small).post([], headers=declared),
    ):
        assert answer.status == 413
        assert answer.headers[b"connection"] == b"close"
        answer.problem()


async def test_a_batch_that_is_too_long() -> None:
    api = Api(IngestLimits(max_batch_events=2))
    assert (await api.post(dump([event()] * 2), BATCH)).status == 204
    assert (await api.post(dump([event()] * 3), BATCH)).status == 413


async def test_a_large_body_is_parsed_beside_the_event_loop() -> None:
    api = Api()
    batch = [event(id=str(number), data={"text": "x" * 1000}) for number in range(1000)]
    assert (await api.post(dump(batch), BATCH)).status == 204
    assert len(await api.stored()) == 1000


async def test_a_client_that_is_too_slow() -> None:
    api = Api(IngestLimits(body_timeout_seconds=0.01))
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answer = await api.post([part(b"{"), {**part(b"}", False), "wait": never}])
    assert answer.status == 408
    assert answer.headers[b"connection"] == b"close"
    assert (await api.post(dump(event()))).status == 204


async def test_a_client_that_hangs_up() -> None:
    api = Api()
    assert (await api.post([part(b"{"), {"type": "http.disconnect"}])).status == 0
    assert api.metrics.rejected == {"client_gone": 1}


async def test_bodies_in_memory_are_bounded_over_all_requests() -> None:
    api = Api(IngestLimits(max_buffered_bytes=1000))
    release: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    body = dump(event())
    slow = asyncio.create_task(
        api.post([part(body + b" " * 980), {**part(b"", False), "wait": release}])
    )
    await asyncio.sleep(0)
    refused = await api.post(body)
    assert refused.status == 503
    assert int(refused.headers[b"retry-after"]) >= 1
    release.set_result(None)
    assert (await slow).status == 204
    assert (await api.post(body)).status == 204
    # One request alone may be larger.
    assert (await api.post(body + b" " * 2000)).status == 204


class FullLog(MemoryLog):
    """A log that cannot take anything now."""

    async def append(self, namespace: str, ingested_at: datetime, count: int, events: bytes) -> int:
        raise UnavailableError("the disk is full", retry_after_seconds=7)


async def test_a_log_that_is_full() -> None:
    api = Api(log=FullLog())
    answer = await api.post(dump(event()))
    assert answer.status == 503
    assert answer.headers[b"retry-after"] == b"7"
    assert api.metrics.events == 0


async def test_metrics() -> None:
    api = Api()
    await api.post(dump([event(), event()]), BATCH)
    await api.post(dump(event()))
    await api.post(dump(event(id=None)))
    await api.post(b"{")
    await api.post(b"", b"text/plain")
    registry = CollectorRegistry()
    registry.register(api.metrics)
    text = generate_latest(registry).decode()
    size = len(dump(event()))
    for line in (
        "meterline_ingest_events_total 3.0",
        "meterline_ingest_batches_total 2.0",
        f"meterline_ingest_bytes_total {3 * size + 3}.0",
        'meterline_ingest_rejected_total{reason="invalid_event"} 1.0',
        'meterline_ingest_rejected_total{reason="invalid_json"} 1.0',
        'meterline_ingest_rejected_total{reason="unsupported_media"} 1.0',
        'meterline_ingest_request_seconds_bucket{le="+Inf"} 5.0',
        "meterline_ingest_request_seconds_count 5.0",
    ):
        assert line in text.splitlines()
