"""`meterline demo`: a server on example data, to look at and to play with."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from time import monotonic
from typing import Annotated, Any

import typer

from meterline.kernel.clock import system_clock
from meterline.kernel.errors import UnavailableError
from meterline.server.cli.http import Api
from meterline.server.cli.query import print_rows

_MODELS = ("small", "large", "embedding")
_SUBJECTS = ("acme", "globex", "initech", "umbrella")
_METERS: tuple[dict[str, Any], ...] = (
    {
        "slug": "tokens",
        "name": "Tokens",
        "aggregation": "SUM",
        "eventType": "request",
        "valueProperty": "$.tokens",
        "groupBy": {"model": "$.model"},
    },
    {"slug": "requests", "name": "Requests", "aggregation": "COUNT", "eventType": "request"},
)
_EVENTS = 20_000
_BATCH = 1_000
_PATIENCE_SECONDS = 60.0


def demo_command(
    port: Annotated[int, typer.Option(help="Port of the demo's server; 0 picks one.")] = 8889,
    once: Annotated[bool, typer.Option("--once", help="Stop after the answers.")] = False,
) -> None:
    """Start a server on example data in a temporary folder, and ask it a few things.

    The folder goes away with the server: stop it with Ctrl-C.
    """
    with TemporaryDirectory(prefix="meterline-demo-") as folder, _server(port, Path(folder)) as url:
        typer.echo(f"A server with data in {folder} is on {url}\n")
        with Api(url, None) as api:
            for meter in _METERS:
                api.call("POST", "/api/v1/meters", body=meter)
            sent = _send_events(api, system_clock())
            typer.echo(f"Sent {sent:,} events; each 204 meant that they are on disk.\n")
            _wait_until_counted(api, sent)
            for title, path in _questions():
                typer.echo(f"{title}\n  GET {path}")
                print_rows(api.json("GET", path)["data"])
                typer.echo("")
        if not once:
            typer.echo(f"Have a look at {url}/docs. Ctrl-C ends the demo and removes its data.")
            _wait_for_interrupt()


def example_events(now: datetime) -> Iterator[dict[str, Any]]:
    """A week of requests to models, the same figures at every run."""
    start = now - timedelta(days=7)
    for number in range(_EVENTS):
        # Spread like chance, and the same each time.
        spread = (number * 2_654_435_761) % 4_294_967_296
        yield {
            "specversion": "1.0",
            "id": f"demo-{number}",
            "source": "demo",
            "type": "request",
            "subject": _SUBJECTS[spread % 7 % len(_SUBJECTS)],
            "time": (start + timedelta(days=7) * number / _EVENTS).isoformat(),
            "data": {"model": _MODELS[spread % 11 % len(_MODELS)], "tokens": 20 + spread % 2_000},
        }


def _send_events(api: Api, now: datetime) -> int:
    events = list(example_events(now))
    for start in range(0, len(events), _BATCH):
        api.call("POST", "/api/v1/events", body=events[start : start + _BATCH])
    return len(events)


def _wait_until_counted(api: Api, expected: int) -> None:
    until = monotonic() + _PATIENCE_SECONDS
    pause = Event()
    while monotonic() < until:
        rows = api.json("GET", "/api/v1/meters/requests/query")["data"]
        if rows and rows[0]["value"] == expected:
            return
        pause.wait(0.05)
    raise UnavailableError("the events were accepted, but are not counted yet")


def _questions() -> Iterator[tuple[str, str]]:
    query = "/api/v1/meters/tokens/query"
    yield "Tokens by model:", f"{query}?groupBy=model"
    yield "Tokens by day:", f"{query}?windowSize=DAY"
    yield "Tokens of acme by model:", f"{query}?subject=acme&groupBy=model"
    yield "Requests by subject:", "/api/v1/meters/requests/query?groupBy=subject"


@contextmanager
def _server(port: int, folder: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "meterline", "serve"]
    command += ["--port", str(port), "--data-dir", str(folder / "data")]
    log = folder / "server.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stderr=errors, cwd=folder)
    try:
        yield _url_of(process, log)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE_SECONDS)


def _url_of(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """The server logs where it listens once it is ready."""
    until = monotonic() + _PATIENCE_SECONDS
    pause = Event()
    while process.poll() is None and monotonic() < until:
        found = re.search(r'"url": "(http://[^"]+)"', log.read_text(encoding="utf-8"))
        if found:
            return found[1]
        pause.wait(0.05)
    raise UnavailableError(f"the demo's server did not start:\n{log.read_text(encoding='utf-8')}")


def _wait_for_interrupt() -> None:
    try:
        Event().wait()
    except KeyboardInterrupt:
        typer.echo("\nbye")
