"""A client that sends as fast as it is answered.

`python -m bench.flood URL SIZE CONNECTIONS SECONDS`

Requests are made beforehand, one is under way per connection, and nothing is looked at but the
status. It runs in a process of its own and prints what it saw as JSON.
"""

import asyncio
import json
import sys
import time
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

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast(asyncio.WriteTransport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        """Note the answer, and go on. Answers of 204 are one packet."""
        now = time.perf_counter()
        if not data.startswith(b"HTTP/1.1 204"):
            self._load.failure = data[:300].decode(errors="replace")
        self._load.latencies.append(now - self._sent)
        if now < self._load.until and not self._load.failure:
            self._next()
        elif self._transport is not None:
            self._transport.close()

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

    def __init__(self, size: int, connections: int, seconds: float) -> None:
        self.requests = requests(size)
        self.number = 0
        self.latencies: list[float] = []
        self.failure = ""
        self.open = connections
        self.over = asyncio.Event()
        self.until = time.perf_counter() + seconds


async def flood(url: str, size: int, connections: int, seconds: float) -> dict[str, float]:
    """Send for some seconds; requests and events a second, and latencies in milliseconds."""
    split = urlsplit(url)
    load = Load(size, connections, seconds)
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
        "events_per_second": rate * size,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[len(ordered) * 99 // 100] * 1000,
    }


if __name__ == "__main__":
    _, url, size, connections, seconds = sys.argv
    print(json.dumps(uvloop.run(flood(url, int(size), int(connections), float(seconds)))))
