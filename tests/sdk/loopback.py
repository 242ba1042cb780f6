"""A server on loopback that answers as a test says."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """A request; `peer` is the same for all of a connection."""

    path: str
    headers: Mapping[str, str]
    content: bytes
    peer: tuple[str, int]

    @property
    def body(self) -> Any:
        return json.loads(self.content)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer. With `lost` the connection is cut instead."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] | None = None
    lost: bool = False


class Loopback:
    """Where it is, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.end = threading.Event()
        """Set at the end: what answers late waits for it."""

    def of(self, path: str) -> list[Asked]:
        """The requests of a path."""
        return [one for one in self.asked if one.path == path]


def _handler(server: Loopback, answer: Callable[[Asked], Reply]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"] or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.path.partition("?")[0], headers, content, self.client_address)
            server.asked.append(asked)
            reply = answer(asked)
            if reply.lost:
                self.close_connection = True
                return
            body = b"" if reply.body is None else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in (reply.headers or {}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        """A client that is gone is none."""


@contextmanager
def loopback(answer: Callable[[Asked], Reply]) -> Iterator[Loopback]:
    """The server, while it runs."""
    running = Loopback()
    with _Server(("127.0.0.1", 0), _handler(running, answer)) as server:
        running.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield running
        finally:
            running.end.set()
            server.shutdown()
            thread.join()
