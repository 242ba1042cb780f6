"""A small HTTP server that takes events as Meterline does, and fails when told to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

Event = dict[str, Any]
Answer = tuple[int, bytes]
Script = Callable[[int, list[Event]], Answer | None]


@dataclass
class EventStub:
    """What arrived. `script` may answer a request (its number from 1, its events) by itself."""

    url: str = ""
    events: dict[tuple[str, str], Event] = field(default_factory=dict)
    requests: int = 0
    received: int = 0
    connections: int = 0
    behind: int = 0
    """How often it is asked until it lists what it has."""
    headers: list[dict[str, str]] = field(default_factory=list)
    script: Script | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, body: bytes, headers: dict[str, str]) -> Answer:
        events: list[Event] = json.loads(body, parse_float=str)
        with self.lock:
            self.requests += 1
            self.headers.append(headers)
            answer = self.script(self.requests, events) if self.script else None
            if answer is not None:
                return answer
            self.received += len(events)
            for event in events:
                self.events.setdefault((event["source"], event["id"]), event)
        return 204, b""

    def sum(self, column: str) -> int:
        return sum(int(event["data"][column]) for event in self.events.values())


def problem(status: int, *faults: tuple[int, str, str]) -> Answer:
    """A problem document that blames events by their index."""
    errors = [{"where": f"events[{at}].{name}", "reason": why} for at, name, why in faults]
    body = {"status": status, "detail": "told to", "extensions": {"validationErrors": errors}}
    return status, json.dumps(body).encode()


@contextmanager
def event_stub() -> Iterator[EventStub]:
    """Run the stub on a free loopback port."""
    stub = EventStub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            with stub.lock:
                stub.connections += 1
            super().setup()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = stub.take(body, headers)
            if status == 0:  # hang up without an answer
                self.close_connection = True
                return
            self._answer(status, answer)

        def do_GET(self) -> None:
            if self.path == "/readyz":
                stub.behind = max(stub.behind - 1, 0)
                lag = {"checks": {"sink": {"lagEvents": stub.behind}}}
                self._answer(200, json.dumps(lag).encode())
                return
            if stub.behind:
                self._answer(200, b"[]")
                return
            wanted = parse_qs(urlsplit(self.path).query)["id"][0]
            items = [{"event": event} for (_, name), event in stub.events.items() if name == wanted]
            self._answer(200, json.dumps(items).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            if body:
                self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield stub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
