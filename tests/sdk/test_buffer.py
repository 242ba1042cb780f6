import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest

from meterline_sdk import BufferFullError, EventBuffer, MeterlineError, RetryPolicy, event
from meterline_sdk._sync._client import Transport
from meterline_sdk._sync.resources.events import Events


class Server:
    """Takes events, unless it is shut."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.took = threading.Event()
        self.batches: list[list[dict[str, Any]]] = []
        self.failures = 0
        self.bad: set[str] = set()

    def events(self) -> Events:
        http = httpx2.Client(transport=httpx2.MockTransport(self._answer))
        return Events(Transport("http://test", retries=RetryPolicy(0), http_client=http))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.open.wait(10)
        if self.failures:
            self.failures -= 1
            raise httpx2.ConnectError("away")
        batch = json.loads(request.content)
        faults = [
            {"index": index, "reason": "bad"}
            for index, one in enumerate(batch)
            if one["id"] in self.bad
        ]
        if faults:
            body = {"status": 400, "title": "Bad", "extensions": {"validationErrors": faults}}
            return httpx2.Response(400, content=json.dumps(body).encode())
        self.batches.append(batch)
        self.took.set()
        return httpx2.Response(204)

    @property
    def ids(self) -> list[str]:
        return [one["id"] for batch in self.batches for one in batch]


def some(count: int) -> list[dict[str, Any]]:
    return [event("llm.usage", "alice", {"n": number}, id=f"e{number}") for number in range(count)]


def test_events_go_out_by_size_and_at_a_flush() -> None:
    server = Server()
    buffer = EventBuffer(server.events().ingest, batch_events=10, max_age_seconds=60)
    for one in some(25):
        assert buffer.put(one)
    assert buffer.flush()
    assert sorted(server.ids) == sorted(one["id"] for one in some(25))
    assert max(len(batch) for batch in server.batches) <= 10
    buffer.close()
    with pytest.raises(MeterlineError, match="closed"):
        buffer.put(some(1)[0])


def test_events_go_out_by_age() -> None:
    server = Server()
    buffer = EventBuffer(server.events().ingest, batch_events=1000, max_age_seconds=0.05)
    buffer.put(some(1)[0])
    assert server.took.wait(10)
    buffer.close()


def test_a_full_buffer_makes_nobody_wait() -> None:
    server = Server()
    server.open.clear()
    dropped: list[str] = []

    def on_drop(events: Sequence[Any], error: Exception) -> None:
        assert isinstance(error, BufferFullError)
        dropped.extend(one["id"] for one in events)

    buffer = EventBuffer(server.events().ingest, max_events=5, batch_events=2, on_drop=on_drop)
    taken = [one["id"] for one in some(8) if buffer.put(one)]
    assert taken == ["e0", "e1", "e2", "e3", "e4"]
    assert dropped == ["e5", "e6", "e7"]
    strict = EventBuffer(server.events().ingest, max_events=1, when_full="raise")
    strict.put(some(1)[0])
    with pytest.raises(BufferFullError):
        strict.put(some(2)[1])
    server.open.set()
    strict.close()
    buffer.close()
    assert len(server.ids) == 6


def test_an_outage_delays_and_loses_nothing() -> None:
    server = Server()
    server.failures = 3
    buffer = EventBuffer(server.events().ingest, retry_seconds=0.01, max_age_seconds=0.0)
    for one in some(3):
        buffer.put(one)
    assert buffer.flush()
    assert sorted(server.ids) == ["e0", "e1", "e2"]
    buffer.close()


def test_refused_events_are_handed_back_and_the_others_sent() -> None:
    server = Server()
    server.bad = {"e1"}
    dropped: list[str] = []
    buffer = EventBuffer(
        server.events().ingest,
        batch_events=3,
        on_drop=lambda events, _: dropped.extend(one["id"] for one in events),
    )
    for one in some(3):
        buffer.put(one)
    assert buffer.flush()
    assert (sorted(server.ids), dropped) == (["e0", "e2"], ["e1"])
    buffer.close()


def test_what_cannot_be_sent_at_the_end_is_handed_back() -> None:
    server = Server()
    server.failures = 10**9
    dropped: list[str] = []
    buffer = EventBuffer(
        server.events().ingest,
        retry_seconds=0.01,
        on_drop=lambda events, _: dropped.extend(one["id"] for one in events),
    )
    for one in some(3):
        buffer.put(one)
    buffer.close(timeout_seconds=0.1)
    assert sorted(dropped) == ["e0", "e1", "e2"]


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
