import logging
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from meterline_sdk import (
    BufferFullError,
    EventBuffer,
    MeterlineError,
    RetryPolicy,
    event,
)
from meterline_sdk._background import buffer_to
from meterline_sdk._sync._client import Transport
from tests.sdk.loopback import Asked, Reply, loopback


class Server:
    """Takes events, unless it is shut."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.took = threading.Event()
        self.batches: list[list[dict[str, Any]]] = []
        self.failures = 0
        self.bad: set[str] = set()
        self.most_bytes = 10**9
        """Of a body; larger ones are refused."""
        self.names = True
        """Whether it says which events are bad."""
        self.url = ""

    def buffer(self, **options: Any) -> EventBuffer:
        return buffer_to(Transport(self.url, retries=RetryPolicy(0)), **options)

    def answer(self, request: Asked) -> Reply:
        self.open.wait(30)
        if self.failures:
            self.failures -= 1
            return Reply(lost=True)
        if len(request.content) > self.most_bytes:
            return Reply(413, {"status": 413, "title": "Too large"})
        batch = request.body
        faults = [
            {"index": index, "reason": "bad"}
            for index, one in enumerate(batch)
            if one["id"] in self.bad
        ]
        if faults:
            said = {"validationErrors": faults} if self.names else {}
            return Reply(400, {"status": 400, "title": "Bad", "extensions": said})
        self.batches.append(batch)
        self.took.set()
        return Reply(204)

    @property
    def ids(self) -> list[str]:
        return [one["id"] for batch in self.batches for one in batch]


class Dropped:
    """What `on_drop` was told."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.errors: list[Exception] = []

    def __call__(self, events: Sequence[Any], error: Exception) -> None:
        self.ids.extend(one["id"] for one in events)
        self.errors.append(error)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    with loopback(found.answer) as running:
        found.url = running.url
        yield found
        found.open.set()


def some(count: int) -> list[dict[str, Any]]:
    return [event("llm.usage", "alice", {"n": number}, id=f"e{number}") for number in range(count)]


def test_events_go_out_by_size_and_at_a_flush(server: Server) -> None:
    buffer = server.buffer(batch_events=10, max_age_seconds=60)
    for one in some(25):
        assert buffer.put(one)
    assert buffer.flush()
    assert sorted(server.ids) == sorted(one["id"] for one in some(25))
    assert max(len(batch) for batch in server.batches) <= 10
    buffer.close()
    with pytest.raises(MeterlineError, match="closed"):
        buffer.put(some(1)[0])


def test_events_go_out_by_age(server: Server) -> None:
    buffer = server.buffer(batch_events=1000, max_age_seconds=0.05)
    buffer.put(some(1)[0])
    assert server.took.wait(10)
    buffer.close()


def test_a_full_buffer_makes_nobody_wait(server: Server) -> None:
    server.open.clear()
    dropped: list[str] = []

    def on_drop(events: Sequence[Any], error: Exception) -> None:
        assert isinstance(error, BufferFullError)
        dropped.extend(one["id"] for one in events)

    buffer = server.buffer(max_events=5, batch_events=2, on_drop=on_drop)
    taken = [one["id"] for one in some(8) if buffer.put(one)]
    assert taken == ["e0", "e1", "e2", "e3", "e4"]
    assert dropped == ["e5", "e6", "e7"]
    strict = server.buffer(max_events=1, when_full="raise")
    strict.put(some(1)[0])
    with pytest.raises(BufferFullError):
        strict.put(some(2)[1])
    server.open.set()
    strict.close()
    buffer.close()
    assert len(server.ids) == 6


def test_an_outage_delays_and_loses_nothing(server: Server) -> None:
    server.failures = 3
    buffer = server.buffer(retry_seconds=0.01, max_age_seconds=0.0)
    for one in some(3):
        buffer.put(one)
    assert buffer.flush()
    assert sorted(server.ids) == ["e0", "e1", "e2"]
    buffer.close()


def test_refused_events_are_handed_back_and_the_others_sent(server: Server) -> None:
    server.bad = {"e1"}
    dropped: list[str] = []
    buffer = server.buffer(
        batch_events=3,
        on_drop=lambda events, _: dropped.extend(one["id"] for one in events),
    )
    for one in some(3):
        buffer.put(one)
    assert buffer.flush()
    assert (sorted(server.ids), dropped) == (["e0", "e2"], ["e1"])
    buffer.close()


def test_what_cannot_be_sent_at_the_end_is_handed_back(server: Server) -> None:
    server.failures = 10**9
    dropped: list[str] = []
    buffer = server.buffer(
        retry_seconds=0.01,
        on_drop=lambda events, _: dropped.extend(one["id"] for one in events),
    )
    for one in some(3):
        buffer.put(one)
    buffer.close(timeout_seconds=0.1)
    assert sorted(dropped) == ["e0", "e1", "e2"]


def test_what_is_under_way_at_the_end_is_handed_back(server: Server) -> None:
    server.open.clear()
    dropped = Dropped()
    buffer = server.buffer(batch_events=2, on_drop=dropped)
    for one in some(3):
        buffer.put(one)
    buffer.close(timeout_seconds=0.2)
    assert sorted(dropped.ids) == ["e0", "e1", "e2"]
    assert len(buffer) == 0


def test_an_event_that_is_no_json_is_dropped_alone(server: Server) -> None:
    dropped = Dropped()
    buffer = server.buffer(batch_events=10, on_drop=dropped)
    for one in some(3):
        assert buffer.put(one)
    assert not buffer.put({**some(1)[0], "id": "odd", "data": {"o": object()}})
    assert not buffer.put({**some(1)[0], "id": "half", "data": {"text": "\ud800"}})
    assert buffer.flush()
    assert (server.ids, dropped.ids) == (["e0", "e1", "e2"], ["odd", "half"])
    assert [type(one) for one in dropped.errors] == [TypeError, UnicodeEncodeError]
    buffer.close()


def test_what_the_caller_changes_afterwards_is_not_sent(server: Server) -> None:
    buffer = server.buffer()
    data = {"n": 1}
    buffer.put(event("llm.usage", "alice", data))
    data["n"] = 2
    assert buffer.flush()
    assert [one["data"] for batch in server.batches for one in batch] == [{"n": 1}]
    buffer.close()


def test_a_batch_that_is_too_large_is_sent_in_parts(server: Server) -> None:
    server.most_bytes = 1_000
    dropped = Dropped()
    buffer = server.buffer(batch_events=8, max_age_seconds=60, on_drop=dropped)
    for one in some(8):
        buffer.put({**one, "data": {"pad": "x" * (2_000 if one["id"] == "e5" else 200)}})
    assert buffer.flush()
    assert sorted(server.ids) == ["e0", "e1", "e2", "e3", "e4", "e6", "e7"]
    assert dropped.ids == ["e5"]
    buffer.close()


def test_a_batch_is_not_larger_than_servers_take(server: Server) -> None:
    server.most_bytes = 6 * 1024 * 1024
    dropped = Dropped()
    buffer = server.buffer(batch_events=8, max_age_seconds=60, on_drop=dropped)
    for one in some(8):
        buffer.put({**one, "data": {"pad": "x" * 1024 * 1024}})
    assert buffer.flush(30)
    assert sorted(server.ids) == sorted(one["id"] for one in some(8))
    assert max(len(batch) for batch in server.batches) == 3
    buffer.close()


def test_a_bad_event_that_nobody_names_is_found(server: Server) -> None:
    server.bad, server.names = {"e3"}, False
    dropped = Dropped()
    buffer = server.buffer(batch_events=8, max_age_seconds=60, on_drop=dropped)
    for one in some(8):
        buffer.put(one)
    assert buffer.flush()
    assert (len(server.ids), dropped.ids) == (7, ["e3"])
    buffer.close()


def test_a_flush_waits_for_on_drop(server: Server) -> None:
    server.bad = {"e0"}
    dropping, go_on = threading.Event(), threading.Event()

    def on_drop(*_: Any) -> None:
        dropping.set()
        go_on.wait(30)

    buffer = server.buffer(batch_events=1, on_drop=on_drop)
    buffer.put(some(1)[0])
    assert dropping.wait(10)
    assert not buffer.flush(0)
    go_on.set()
    assert buffer.flush()
    buffer.close()


def test_a_failing_on_drop_stops_nothing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a bug of the caller's")

    server.bad = {"e0"}
    with caplog.at_level(logging.ERROR, "meterline_sdk"):
        buffer = server.buffer(batch_events=1, on_drop=fail)
        for one in some(2):
            buffer.put(one)
        assert buffer.flush()
        assert not buffer.put({"id": object()})
        buffer.close()
    assert server.ids == ["e1"]
    assert "a bug of the caller's" in caplog.text


_AT_EXIT = """
import json, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from meterline_sdk import Meterline

class Taking(BaseHTTPRequestHandler):
    def do_POST(self):
        batch = json.loads(self.rfile.read(int(self.headers["content-length"])))
        print(*(one["data"]["n"] for one in batch), flush=True)
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Taking)
threading.Thread(target=server.serve_forever, daemon=True).start()
meterline = Meterline(f"http://127.0.0.1:{server.server_port}", buffer={"max_age_seconds": 3600})
for number in range(3):
    meterline.track_event("llm.usage", "alice", {"n": number})
"""


def test_the_end_of_the_process_sends_what_is_left() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _AT_EXIT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.split(), done.stderr) == (["0", "1", "2"], "")
