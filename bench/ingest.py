"""Ingest to the durable acknowledgement: `python -m bench.ingest`.

Beside it, in the same run and on the same disk: the bare event log appending the same bytes.
The client has a process of its own and shares the machine. By default the endpoint and the log
run by themselves, as with `--role ingest`; `--whole` takes `meterline serve`, sink and all.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import uvicorn
import uvloop

from bench.flood import bodies
from bench.serving import serving
from ingest.api import IngestEndpoint
from ingest.limits import IngestLimits
from ingest.metrics import IngestMetrics
from ingest.parse import Parser
from ingest.service import IngestService
from meterline.eventlog.sqlite import SqliteLog
from meterline.kernel.clock import system_clock
from meterline.server.serve import configured, tune_interpreter
from meterline.web.auth import OPEN, Principal

_BATCH = b"application/cloudevents-batch+json"


async def bare_log(
    folder: Path, appends: list[tuple[int, bytes]], callers: int, seconds: float
) -> float:
    """Events a second when nobody does anything but append."""
    log = SqliteLog(folder / "bare.log")
    now = datetime.now(UTC)
    until = time.perf_counter() + seconds
    written = number = 0

    async def caller() -> None:
        nonlocal written, number
        while time.perf_counter() < until:
            number += 1
            count, events = appends[number % len(appends)]
            await log.append("default", now, count, events)
            written += count

    begin = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    took = time.perf_counter() - begin
    await log.trim(0, await log.end(0))
    await log.close()
    return written / took


class Everybody:
    """An authenticator for a server without keys."""

    async def authenticate(self, authorization: str | None) -> Principal:
        """Everybody may."""
        return OPEN


async def serve_alone(folder: Path, listener: socket.socket) -> None:
    """The endpoint and the log, and a trim now and then in place of the sink."""
    log = SqliteLog(folder / "events.log")
    service = IngestService(log, system_clock, IngestLimits(), IngestMetrics())
    config = configured(IngestEndpoint(service, Everybody()))
    tune_interpreter()

    async def trim() -> None:
        while True:
            await asyncio.sleep(0.5)
            await log.trim(0, await log.end(0))

    trimming = asyncio.create_task(trim())
    await uvicorn.Server(config).serve(sockets=[listener])
    trimming.cancel()
    await log.close()


@contextmanager
def alone(folder: Path) -> Iterator[str]:
    """The address of a server of the endpoint and the log only."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        command = [sys.executable, "-m", "bench.ingest", "--serve", str(listener.fileno())]
        process = subprocess.Popen([*command, str(folder)], pass_fds=[listener.fileno()])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            process.terminate()
            process.wait(30)


def flood(url: str, size: int, connections: int, seconds: float) -> dict[str, float]:
    """One run of the client."""
    arguments = [url, str(size), str(connections), str(seconds)]
    command = [sys.executable, "-m", "bench.flood", *arguments]
    found: dict[str, float] = json.loads(subprocess.run(command, stdout=-1, check=True).stdout)
    return found


def measure(folder: Path, url: str, seconds: float, rounds: int) -> None:
    """Take turns, so that a busy moment of the machine hits both; print the medians."""
    parser = Parser(IngestLimits())
    accepted = [parser.parse([], _BATCH, body) for body in bodies(100)]
    appends = [(batch.count, batch.events) for batch in accepted]
    flood(url, 100, 16, 0.5)  # a server's first second is not its speed
    batched, bare, single = [], [], []
    for _ in range(rounds):
        batched.append(flood(url, 100, 16, seconds))
        bare.append(uvloop.run(bare_log(folder, appends, 16, seconds)))
        single.append(flood(url, 1, 32, seconds))
    rates = [100 * run["requests_per_second"] for run in batched]
    rate = median(rates)
    print("| ingest to durable ack | |\n|---|---|")
    print(f"| batches of 100, 16 connections | {rate:,.0f} events/s |")
    print(f"| p99 of these | {median(run['p99_ms'] for run in batched):.1f} ms |")
    print(f"| bare log, 16 callers, the same bytes | {median(bare):,.0f} events/s |")
    shares = [rate / alone for rate, alone in zip(rates, bare, strict=True)]
    print(f"| share of the bare log | {median(shares):.2f} |")
    requests = median(run["requests_per_second"] for run in single)
    print(f"| single events, 32 connections | {requests:,.0f} requests/s |")
    print(
        f"| p50, p99 of these | {median(run['p50_ms'] for run in single):.1f} ms,"
        f" {median(run['p99_ms'] for run in single):.1f} ms |"
    )


def main() -> None:
    """Read the arguments and measure."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--whole", action="store_true", help="measure `meterline serve`")
    arguments.add_argument("--seconds", type=float, default=3.0)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="where to write (default: a temporary one)")
    arguments.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.serve:
        listener = socket.socket(fileno=int(options.serve[0]))
        uvloop.run(serve_alone(Path(options.serve[1]), listener))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if options.whole:
            with serving(folder / "data") as server:
                measure(folder, server.url, options.seconds, options.rounds)
        else:
            with alone(folder) as url:
                measure(folder, url, options.seconds, options.rounds)


if __name__ == "__main__":
    main()
