"""Tracked clients: what they add to a call of the provider's own client.

python -m bench.tracked [--calls 1000] [--warm 100] [--pause 0.01]

The provider is a stub in a process of its own that answers at once; the server is a third process.
The subject's plan has all limits that there are, none of which bites. Before each tracked call goes
a plain one, so that both see the same machine, and what is added is the median of the differences
of such pairs: what else the machine does falls on both. Between pairs there is a pause, in which
records are sent; without it the client would do nothing but wait for its own records.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

from bench.serving import serving
from meterline_sdk import Meterline
from meterline_sdk.tracked import TrackedOpenAI

_ASKED: list[Any] = [{"role": "user", "content": "Say hello to my friend"}]
_STUB = (
    "import socketserver, sys; from tests.sdk.providers import serving\n"
    # Else it sometimes waits 40 ms for the acknowledgement of its own head.
    "socketserver.StreamRequestHandler.disable_nagle_algorithm = True\n"
    "with serving() as stub: print(stub.url, flush=True); sys.stdin.read()"
)


@contextmanager
def provider() -> Iterator[str]:
    """The stub's address."""
    process = subprocess.Popen(
        [sys.executable, "-c", _STUB], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait(10)


def percentile(times: list[float], share: float) -> float:
    """In milliseconds."""
    return sorted(times)[min(int(len(times) * share), len(times) - 1)] * 1_000


Pairs = dict[str, list[tuple[float, float]]]
"""Seconds of plain calls, and of those of a way that came just after."""


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def measure(
    plain: Callable[[], object], ways: dict[str, Callable[[], object]], calls: int, pause: float
) -> Pairs:
    """Pairs of calls, the ways taking turns."""
    pairs: Pairs = {name: [] for name in ways}
    for _ in range(calls):
        for name, call in ways.items():
            pairs[name].append((seconds(plain), seconds(call)))
            time.sleep(pause)
    return pairs


def asking(client: Any, **options: Any) -> Callable[[], object]:
    """A call of a client."""
    return lambda: client.chat.completions.create(
        model="gpt-4o", messages=_ASKED, max_tokens=100, **options
    )


def run(server: str, stub: str, given: argparse.Namespace) -> None:
    """Measure, and print."""
    local: dict[str, Any] = {"api_key": "k", "base_url": f"{stub}/v1", "max_retries": 0}
    with (
        Meterline(server) as meterline,
        openai.OpenAI(**local) as plain,
        TrackedOpenAI(meterline, **local) as tracked,
        TrackedOpenAI(meterline, reserve=True, **local) as reserving,
        TrackedOpenAI(meterline, check=False, **local) as recording,
    ):
        meterline.plans.create(
            "bench",
            monthly_token_limit=10**12,
            monthly_cost_limit_usd=10**6,
            requests_per_minute=10**6,
            requests_per_hour=10**6,
            tokens_per_minute=10**9,
        )
        meterline.plans.assign("ann", "bench")
        ways = {
            "plain again": asking(plain),
            "recorded only": asking(recording, user_id="ann"),
            "tracked": asking(tracked, user_id="ann"),
            "reserved": asking(reserving, user_id="ann"),
        }
        measure(asking(plain), ways, given.warm, given.pause)
        pairs = measure(asking(plain), ways, given.calls, given.pause)
        waiting = len(meterline.records)
        begin = time.perf_counter()
        meterline.records.flush(600)
        left = time.perf_counter() - begin
    shares = (0.05, 0.5, 0.99)
    print(f"load {os.getloadavg()[0]:.1f}; p5, p50, p99 in ms of a call, and of what it adds")
    for name, found in pairs.items():
        own = [percentile([one for _, one in found], share) for share in shares]
        added = [percentile([one - bare for bare, one in found], share) for share in shares]
        print(f"{name:14}", *(f"{one:8.2f}" for one in own), *(f"{one:+8.2f}" for one in added))
    print(f"{waiting} records waited at the end, and took {left:.1f} s")


def main() -> None:
    """Run with the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1_000)
    parser.add_argument("--warm", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.01, help="seconds between pairs")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "data") as server,
        provider() as stub,
    ):
        run(server.url, stub, given)


if __name__ == "__main__":
    main()
