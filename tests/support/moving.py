"""A data folder with something of everything in it, and deployments to move it to."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from meterline.server.moving.telling import Step
from tests.support.clickhouse import shared_options
from tests.support.cluster import Cluster
from tests.support.kafka import KafkaBroker
from tests.support.meters import Event, event, make_meter, send, settle
from tests.support.postgres import PostgresCluster
from tests.support.server import MeterlineServer, cli_environment, eventually, run_cli

METERS = {
    "tokens": ("SUM", "$.n"), "calls": ("COUNT", None), "gauge": ("LATEST", "$.n"),
    "users": ("UNIQUE_COUNT", "$.user"), "mean": ("AVG", "$.n"), "high": ("MAX", "$.n"),
}  # fmt: skip
_HUGE = "12345678901234567890.123456789012345678"
_REST = {"tokens": "30", "calls": "60", "gauge": "0.5", "mean": "0.5", "high": "0.5"}
_MOMENT = "2026-03-01T12:00:00.000001Z"


@dataclass(frozen=True)
class Embedded:
    """A folder whose server is stopped, the keys of its namespaces, and what it answered."""

    folder: Path
    keys: Mapping[str, str]
    sent: Mapping[str, list[Event]]
    """What was sent, in order, by namespace."""
    totals: Mapping[str, Any]
    """Answers of the meters of `default`, with what waits in the log."""
    rest: int
    """How many events wait in the log."""
    value: Mapping[str, Any]
    """The balance of `acme`."""
    hold: str
    """An open hold of `acme`."""

    def copied(self, folder: Path) -> Path:
        """The same, to be changed."""
        return Path(shutil.copytree(self.folder, folder, symlinks=True))


def usual_events() -> list[Event]:
    """Events of the type `t`: duplicates, conflicts, faults, large numbers, ties, odd names."""
    events = [
        event(
            f"{number}",
            type="t",
            subject=f"s{number % 7}",
            time=f"2026-03-{1 + number % 20:02}T{number % 24:02}:00:00Z",
            data={"n": number / 4, "user": f"u{number % 11}", "model": f"m{number % 3}"},
        )
        for number in range(300)
    ]
    events += [{**events[5], "data": {"n": 1000}}, events[6], {**events[7], "subject": "other"}]
    events += [event(f"bad{n}", type="t", data={"n": "x"}) for n in range(3)]
    events += [event(f"same{n}", type="t", time=_MOMENT, data={"n": n}) for n in range(4)]
    events += [
        event('odd "é\\/\u2028', type="t", source="urn:a/b?c=%22", data={"n": "1e-17"}),
        event("huge", type="t", data={"n": _HUGE, "user": "\u0001"}),
        event("old", type="t", time="1905-01-01T00:00:00.5Z", data={"n": 1}),
        event("text", type="t", datacontenttype="text/plain", data="no\njson"),
        event("bytes", type="t", datacontenttype="image/png", data_base64="AAEC"),
        event("more", type="t", data=[1, {"n": 2}], tenant="x", count=7),
        event("none", type="u"),
    ]
    return events


def _gone_events() -> list[Event]:
    return [event(f"gone{n}", type="t", subject="gone", data={"n": 7}) for n in range(5)]


@contextmanager
def _as(server: MeterlineServer, key: str) -> Iterator[httpx.Client]:
    with server.client(headers={"authorization": f"Bearer {key}"}) as client:
        yield client


def build(folder: Path) -> Embedded:
    """Run a server on a folder, fill it, and kill it while events wait in its log."""
    keys = {name: _key(folder, name) for name in ("default", "two")}
    sent: dict[str, list[Event]] = {"default": usual_events(), "two": usual_events()[:50]}
    with MeterlineServer(folder) as server:
        for name, key in keys.items():
            with _as(server, key) as client:
                for slug, (aggregation, path) in METERS.items():
                    fields: dict[str, Any] = {"valueProperty": path} if path else {}
                    fields |= {"groupBy": {"model": "$.model"}} if slug == "tokens" else {}
                    make_meter(client, slug, aggregation, eventType="t", **fields)
                for start in range(0, len(sent[name]), 40):
                    send(client, sent[name][start : start + 40])
                settle(client)
        with _as(server, keys["default"]) as client:
            value, hold = _entitle(client)
            _purge(client)
            settle(client)
            totals = answers(client)
        assert server.stop() == 0
    rest = [event(f"rest{n}", type="t", subject="rest", data={"n": 0.5}) for n in range(60)]
    slow = MeterlineServer(folder, environment={"METERLINE_SINK__LINGER_SECONDS": "10"})
    with slow as server, _as(server, keys["default"]) as client:
        for start in range(0, 60, 20):
            send(client, rest[start : start + 20])
        server.kill()
        server._process = None
    sent["default"] += rest
    for slug, answer in _REST.items():
        totals[slug] = sorted([*totals[slug], ("rest", answer)])
    return Embedded(folder, keys, sent, totals, len(rest), value, hold)


def _key(folder: Path, namespace: str) -> str:
    given = ("--namespace", namespace, "--data-dir", folder)
    done = run_cli("keys", "create", "--quiet", "--scope", "admin", *given)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _entitle(client: httpx.Client) -> tuple[dict[str, Any], str]:
    """Credits with usage, a confirmed hold and an open one."""
    path = "/api/v1/subjects/acme"

    def bought() -> bool:
        # The first use makes the meter of credits, which takes a moment.
        once = {"idempotency-key": "buy"}
        return client.post(f"{path}/credits", json={"amount": 1000}, headers=once).is_success

    eventually(bought, "credits can be bought", 60)
    feature = {"key": "tokens", "name": "Tokens", "meterSlug": "tokens"}
    client.post("/api/v1/features", json=feature).raise_for_status()
    wanted: dict[str, Any] = {
        "type": "metered", "featureKey": "tokens", "issueAfterReset": 500,
        "usagePeriod": {"interval": "MONTH"},
    }  # fmt: skip
    client.post(f"{path}/entitlements", json=wanted).raise_for_status()
    send(client, [event(f"acme{n}", type="t", subject="acme", data={"n": 0.25}) for n in range(9)])
    holds = f"{path}/entitlements/credits/holds"
    used, opened = (
        client.post(holds, json={"amount": amount, "ttlSeconds": 3600}).raise_for_status().json()
        for amount in (12.5, 30)
    )
    body = {"amount": 10}
    client.post(f"{holds}/{used['id']}/confirm", json=body).raise_for_status()

    def settled() -> bool:
        return bool(client.get(f"{path}/entitlements/credits/value").json()["usage"] == 10)

    eventually(settled, "the confirmed hold is usage")
    return balances(client), opened["id"]


def balances(client: httpx.Client) -> dict[str, Any]:
    """What `acme` may still use."""
    found = {}
    for key in ("credits", "tokens"):
        path = f"/api/v1/subjects/acme/entitlements/{key}/value"
        answer = client.get(path, params={"wait": "true"}).raise_for_status().json()
        found[key] = {name: answer.get(name) for name in ("balance", "usage", "held", "available")}
    return found


def _purge(client: httpx.Client) -> None:
    """A subject that is erased, and an event of another in conflict with one of its."""
    send(client, _gone_events())
    send(client, [event("gone0", type="t", subject="s1", data={"n": 100})])
    settle(client)
    client.delete("/api/v1/subjects/gone", params={"purgeUsage": "true"}).raise_for_status()


def resent() -> list[Event]:
    """Events that were stored and erased: they must never count again."""
    return _gone_events()


def answers(client: httpx.Client) -> dict[str, Any]:
    """What every meter says, by subject, as text so that no digit is lost."""
    found: dict[str, Any] = {}
    for slug in METERS:
        params = {"groupBy": "subject"}
        answer = client.get(f"/api/v1/meters/{slug}/query", params=params).raise_for_status()
        rows = json.loads(answer.text, parse_float=str, parse_int=str)["data"]
        found[slug] = sorted((row["subject"] or "", row["value"]) for row in rows)
    return found


class Target:
    """An empty deployment: settings for commands and servers."""

    def __init__(self, folder: Path, broker: KafkaBroker, postgres: PostgresCluster) -> None:
        self.database = postgres.create_database(empty=True)
        self.store = shared_options(f"moved_{secrets.token_hex(6)}")
        self.cluster = Cluster(
            folder, broker.bootstrap, self.store, self.database, gateways=0, sinks=1
        )
        folder.mkdir(parents=True, exist_ok=True)

    def move(self, source: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command."""
        done = self.cluster.cli("migrate-data", "--from", source, *arguments)
        assert isinstance(done, subprocess.CompletedProcess)
        return done

    def move_until(self, source: Path, *steps: str) -> int:
        """Run it in small chunks, and kill it at the last of these steps, as `events:3`: when
        that comes the third time. At those before it is broken off and begun again."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.moving", str(source), *steps],
            env=cli_environment(self.cluster.environment),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode in (0, -signal.SIGKILL), done.stdout + done.stderr
        return done.returncode


class Silent:
    """A `Tell` that nobody listens to."""

    def begin(self, what: str, total: int | None, done: int = 0) -> None:
        """Nothing."""

    def advance(self, count: int) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""


class _BrokenOff(BaseException):
    """The run ends here."""


def _run_and_die(folder: Path, steps: Sequence[str]) -> None:
    from aggregator import moving
    from meterline.server.moving.move import move_data
    from meterline.server.moving.source import source_settings
    from meterline.server.settings import load_settings

    moving._ROWS, moving._KEYS = 40, 100
    settings = load_settings()
    source = source_settings(settings, folder)
    for index, one in enumerate(steps):
        name, _, number = one.partition(":")
        until = _until(name, int(number or 1), dies=index + 1 == len(steps))
        with suppress(_BrokenOff):
            moved = asyncio.run(move_data(source, settings, Silent(), on_step=until))
            assert moved.report.agrees, moved.report


def _until(name: str, number: int, *, dies: bool) -> Step:
    left = number

    async def on_step(step: str) -> None:
        nonlocal left
        left -= step == name
        if left == 0 and dies:
            os.kill(os.getpid(), signal.SIGKILL)
        elif left == 0:
            raise _BrokenOff

    return on_step


if __name__ == "__main__":
    _run_and_die(Path(sys.argv[1]), sys.argv[2:])
