"""Synthetic LLM usage, and a client that costs as little as a client can.

Events are about 380 bytes, from 20 sources and 10,000 subjects, one in a hundred of them from one
busy subject. Ids are random, so that nothing compresses or sorts better than in life.
"""

import json
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

SUBJECTS = 10_000
_MODELS = ("gpt-4o", "gpt-4o-mini", "claude-sonnet", "command-r", "gemini-flash")
_REGIONS = ("eu-west-1", "us-east-1", "ap-south-1")


def events(
    count: int,
    *,
    seed: int,
    types: int = 1,
    start: datetime | None = None,
    subjects: int = SUBJECTS,
    users: int = 1000,
) -> Iterator[str]:
    """`count` events as JSON texts, 20,000 a second of event time from `start` (now)."""
    chance = random.Random(seed)
    begin = start or datetime.now(UTC)
    for number in range(count):
        subject = 0 if chance.random() < 0.01 else chance.randrange(subjects)
        # Half of all events are of the first type, as one endpoint is the busiest in life.
        kind = 0 if types == 1 or chance.random() < 0.5 else chance.randrange(1, types)
        at = begin + timedelta(microseconds=50 * number)
        data = {
            "model": _MODELS[chance.randrange(5)],
            "region": _REGIONS[chance.randrange(3)],
            "tokens_in": chance.randrange(1, 8000),
            "tokens_out": chance.randrange(1, 2000),
            "tokens_cached": chance.randrange(0, 500),
            "cost": f"0.0{chance.randrange(10**6):06d}",
            "latency_ms": chance.randrange(20, 9000),
            "route": "/v1/chat/completions",
            "status": "ok",
            "user": f"user-{chance.randrange(users)}",
        }
        yield json.dumps(
            {
                "specversion": "1.0",
                "id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
                "source": f"gateway-{number % 20}",
                "type": f"llm.usage.{kind}" if types > 1 else "llm.usage",
                "subject": f"customer-{subject:05d}",
                "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "data": data,
            },
            separators=(",", ":"),
        )


def batches(texts: Iterator[str], size: int) -> list[bytes]:
    """JSON arrays of `size` events each."""
    out: list[bytes] = []
    chunk: list[str] = []
    for text in texts:
        chunk.append(text)
        if len(chunk) == size:
            out.append(f"[{','.join(chunk)}]".encode())
            chunk = []
    if chunk:
        out.append(f"[{','.join(chunk)}]".encode())
    return out


@dataclass(frozen=True, slots=True)
class Sent:
    """What a run of the client saw: seconds it took, and each request's latency."""

    seconds: float
    latencies_seconds: Sequence[float]

    def percentile(self, share: float) -> float:
        """A latency in seconds, by nearest rank."""
        ordered = sorted(self.latencies_seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def post_all(
    url: str, bodies: Sequence[bytes], *, connections: int, rate_per_second: float | None = None
) -> Sent:
    """POST bodies to /api/v1/events over blocking sockets, each answered 204 before the next.

    With `rate_per_second`, requests start on a schedule, and latency counts from the schedule.
    """
    split = urlsplit(url)
    address = (split.hostname or "127.0.0.1", split.port or 80)
    requests = [_request(address, body) for body in bodies]
    latencies = [0.0] * len(requests)
    faults: list[str] = []
    begin = time.perf_counter()

    def run(first: int) -> None:
        with socket.create_connection(address) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number in range(first, len(requests), connections):
                started = time.perf_counter()
                if rate_per_second is not None:
                    due = begin + number / rate_per_second
                    if due > started:
                        time.sleep(due - started)
                    started = due
                connection.sendall(requests[number])
                answer = connection.recv(4096)
                if not answer.startswith(b"HTTP/1.1 204"):
                    faults.append(answer[:300].decode(errors="replace"))
                    return
                latencies[number] = time.perf_counter() - started

    threads = [threading.Thread(target=run, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise RuntimeError(f"the server refused: {faults[0]}")
    return Sent(time.perf_counter() - begin, latencies)


def _request(address: tuple[str, int], body: bytes) -> bytes:
    head = (
        f"POST /api/v1/events HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n"
        "Content-Type: application/cloudevents-batch+json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
