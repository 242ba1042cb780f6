"""A client that sends as fast as it is answered.

`python -m bench.flood URL SIZE CONNECTIONS SECONDS` posts batches of SIZE events;
`python -m bench.flood URL - CONNECTIONS SECONDS` gets the paths that standard input lists.

Requests are made beforehand, one is under way per connection, and nothing is looked at but the
status. It runs in a process of its own and prints what it saw as JSON.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.traffic import batches, events

_DISTINCT_EVENTS = 40_000


def bodies(size: int, seed: int = 7) -> list[bytes]:
    """Distinct bodies: events for `size` 1, else arrays of `size` events."""
    texts = events(max(_DISTINCT_EVENTS // 4, min(_DISTINCT_EVENTS, 200 * size)), seed=seed)
    return [text.encode() for text in texts] if size == 1 else batches(texts, size)


def requests(size: int) -> list[bytes]:
    """The same as whole HTTP requests."""
    kind = "cloudevents" if size == 1 else "cloudevents-batch"
    return [
        f"POST /api/v1/events HTTP/1.1\r\nHost: bench\r\nContent-Type: application/{kind}+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
        for body in bodies(size)
    ]


class Connection(asyncio.Protocol):
    """Sends the next request when the last one is answered."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._transport: asyncio.WriteTransport | None = None
        self._sent = 0.0
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        """Note the answer when it is whole, and go on."""
        if self._missing:
            self._missing -= len(data)
        else:
            self._missing = self._begin(data)
        if self._missing:
            return
        now = time.perf_counter()
        self._load.latencies.append(now - self._sent)
        if now < self._load.until and not self._load.failure:
            self._next()
        elif self._transport is not None:
            self._transport.close()

    def _begin(self, data: bytes) -> int:
        """How many bytes of an answer are still to come. Its head is in the first packet."""
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            self._load.failure = data[:300].decode(errors="replace")
        _, found, length = head.lower().partition(b"content-length: ")
        return int(length.split(b"\r\n", 1)[0]) - len(body) if found else 0

    def connection_lost(self, exc: Exception | None) -> None:
        """One less."""
        self._load.open -= 1
        if not self._load.open:
            self._load.over.set()

    def _next(self) -> None:
        load = self._load
        load.number = (load.number + 1) % len(load.requests)
        self._sent = time.perf_counter()
        assert self._transport is not None
        self._transport.write(load.requests[load.number])


class Load:
    """What the connections share."""

    def __init__(self, requests: Sequence[bytes], connections: int, seconds: float) -> None:
        self.requests = requests
        self.number = 0
        self.latencies: list[float] = []
        self.failure = ""
        self.open = connections
        self.over = asyncio.Event()
        self.until = time.perf_counter() + seconds


def gets(paths: Iterable[str]) -> list[bytes]:
    """Requests for paths."""
    return [f"GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n".encode() for path in paths]


async def flood(
    url: str, requests: Sequence[bytes], connections: int, seconds: float
) -> dict[str, float]:
    """Send for some seconds; requests a second, and latencies in milliseconds."""
    split = urlsplit(url)
    load = Load(requests, connections, seconds)
    loop = asyncio.get_running_loop()
    address = split.hostname or "127.0.0.1"
    begin = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: Connection(load), address, split.port or 80)
    async with asyncio.timeout(seconds + 30):
        await load.over.wait()
    took = time.perf_counter() - begin
    if load.failure:
        raise RuntimeError(f"the server refused: {load.failure}")
    ordered = sorted(load.latencies)
    rate = len(ordered) / took
    return {
        "requests_per_second": rate,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[len(ordered) * 99 // 100] * 1000,
    }


if __name__ == "__main__":
    _, url, size, connections, seconds = sys.argv
    made = gets(sys.stdin.read().split()) if size == "-" else requests(int(size))
    seen = uvloop.run(flood(url, made, int(connections), float(seconds)))
    print(json.dumps(seen))
