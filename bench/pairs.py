"""A client that opens and confirms holds as fast as it is answered.

`python -m bench.pairs URL CONNECTIONS SECONDS SUBJECTS` prints what it saw as JSON. One request is
under way per connection: a hold of 1 is opened, then confirmed.
"""

import asyncio
import json
import sys
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

_HEAD = "POST /api/v1/subjects/{}/entitlements/{}/holds{} HTTP/1.1\r\nHost: bench\r\n"


class Load:
    """What the connections share."""

    def __init__(self, feature: str, subjects: int, connections: int, seconds: float) -> None:
        self.feature = feature
        self.subjects = subjects
        self.opens: list[float] = []
        self.confirms: list[float] = []
        self.failure = ""
        self.open = connections
        self.over = asyncio.Event()
        self.until = time.perf_counter() + seconds


class Connection(asyncio.Protocol):
    """Opens a hold, confirms it, and so on."""

    def __init__(self, load: Load, number: int) -> None:
        self._load = load
        self._name = f"{time.time_ns():x}-{number}"
        self._number = number
        self._count = 0
        self._confirming = True
        self._transport: asyncio.WriteTransport | None = None
        self._sent = 0.0
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.WriteTransport, transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        """Note the answer when it is whole, and go on."""
        load = self._load
        self._missing = self._missing - len(data) if self._missing else self._begin(data)
        if self._missing:
            return
        now = time.perf_counter()
        (load.confirms if self._confirming else load.opens).append(now - self._sent)
        done = self._confirming and now >= load.until
        if not done and not load.failure:
            self._next()
        elif self._transport is not None:
            self._transport.close()

    def _begin(self, data: bytes) -> int:
        """How many bytes of an answer are still to come. Its head is in the first packet."""
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 20"):
            self._load.failure = data[:400].decode(errors="replace")
        _, found, length = head.lower().partition(b"content-length: ")
        return int(length.split(b"\r\n", 1)[0]) - len(body) if found else 0

    def connection_lost(self, exc: Exception | None) -> None:
        """One less."""
        self._load.open -= 1
        if not self._load.open:
            self._load.over.set()

    def _next(self) -> None:
        load = self._load
        self._confirming = not self._confirming
        if not self._confirming:
            self._count += 1
        hold = f"{self._name}-{self._count}"
        subject = f"subject-{(self._number + 64 * self._count) % load.subjects}"
        action, body = "", f'{{"amount":1,"id":"{hold}"}}'
        if self._confirming:
            action, body = f"/{hold}/confirm", "{}"
        head = _HEAD.format(subject, load.feature, action)
        assert self._transport is not None
        self._sent = time.perf_counter()
        self._transport.write(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            f"{body}".encode()
        )


async def pairs(
    url: str, connections: int, seconds: float, subjects: int, feature: str = "tokens"
) -> dict[str, float]:
    """Pairs a second, and the latencies of single requests in milliseconds."""
    split = urlsplit(url)
    load = Load(feature, subjects, connections, seconds)
    loop = asyncio.get_running_loop()
    begin = time.perf_counter()
    for number in range(connections):
        await loop.create_connection(
            lambda number=number: Connection(load, number),  # type: ignore[misc]
            split.hostname or "127.0.0.1",
            split.port or 80,
        )
    async with asyncio.timeout(seconds + 30):
        await load.over.wait()
    took = time.perf_counter() - begin
    if load.failure:
        raise RuntimeError(f"the server refused: {load.failure}")
    seen = {"pairs_per_second": len(load.confirms) / took}
    for name, latencies in (("open", load.opens), ("confirm", load.confirms)):
        ordered = sorted(latencies)
        seen[f"{name}_p50_ms"] = ordered[len(ordered) // 2] * 1000
        seen[f"{name}_p99_ms"] = ordered[len(ordered) * 99 // 100] * 1000
    return seen


if __name__ == "__main__":
    _, url, connections, seconds, subjects = sys.argv
    print(json.dumps(uvloop.run(pairs(url, int(connections), float(seconds), int(subjects)))))
