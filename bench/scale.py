"""How each thing grows: `python -m bench.scale [--parts events subjects meters groups]`.

One process with everything in it. For each size: a store that is filled beforehand, then a server
on it; how long a new meter takes, what queries and checks take, how fast more events come in
until they are visible, and what memory and disk it needs. Each part varies one thing and keeps the
others: 1,000,000 events, 10,000 subjects, one meter, five groups.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx

from aggregator.stores.clickhouse import ClickHouseEngine
from bench.checks import FEATURES, entitle
from bench.checks import flood as flood_gets
from bench.cluster import load_average
from bench.queries import fill, timed
from bench.serving import Server, serving
from bench.traffic import batches, events, post_all

PARTS = ("events", "subjects", "meters", "groups")
_BATCH = 1000
_MONTH = {"from": "2026-10-01T00:00:00Z", "to": "2026-10-31T00:00:00Z"}
_LATER = datetime(2026, 10, 31, tzinfo=UTC)
_MOST_ROWS = 100_000
"""`query.max_rows`: an answer with more is refused."""
_VALUES = ("tokens_in", "tokens_out", "cost", "latency_ms", "tokens_cached")
_GROUPS = ("model", "region", "route", "status", "user")


@dataclass(frozen=True)
class Shape:
    """What is in the store."""

    events: int = 1_000_000
    subjects: int = 10_000
    meters: int = 1
    """All on the one event type there is, each with points of its own."""
    users: int = 1_000
    """Values of the group key `user`, which a meter has if it is wanted."""
    by_user: bool = False


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    burst: int
    seconds: float
    checked: int


def specs(shape: Shape) -> list[dict[str, object]]:
    """The first is `tokens`, which queries and checks ask. No two share their points."""
    groups = {"model": "$.model", "region": "$.region"}
    if shape.by_user:
        groups["user"] = "$.user"
    found: list[dict[str, object]] = [_sum("tokens", "tokens_in", groups)]
    for number in range(1, shape.meters):
        value = _VALUES[number % len(_VALUES)]
        named = [name for bit, name in enumerate(_GROUPS) if (number // len(_VALUES)) >> bit & 1]
        found.append(_sum(f"m_{number}", value, {name: f"$.{name}" for name in named}))
    return found


def _sum(slug: str, value: str, groups: Mapping[str, str]) -> dict[str, object]:
    return {
        "slug": slug, "eventType": "llm.usage", "aggregation": "SUM",
        "valueProperty": f"$.{value}", "groupBy": dict(groups),
    }  # fmt: skip


def make_meters(client: httpx.Client, shape: Shape) -> float:
    """Seconds until all meters are ready."""
    begin = time.perf_counter()
    for spec in specs(shape):
        client.post("/api/v1/meters", json=spec).raise_for_status()
    while True:
        found = client.get("/api/v1/meters", params={"limit": 1000}).json()
        listed = found if isinstance(found, list) else found["items"]
        if all(one["status"]["state"] == "ready" for one in listed):
            return time.perf_counter() - begin
        time.sleep(0.1)


def some(client: httpx.Client, key: str) -> list[str]:
    """Subjects, or values of a group key, with usage: those of half an hour, but the busiest."""
    params = {"from": "2026-10-07T12:00:00Z", "to": "2026-10-07T12:30:00Z", "groupBy": key}
    data = client.get("/api/v1/meters/tokens/query", params=params).json()["data"]
    values = [row["subject"] if key == "subject" else row["groupBy"][key] for row in data]
    return [value for value in values if value != "customer-00000"]


def ask_queries(client: httpx.Client, shape: Shape) -> dict[str, float]:
    """Median milliseconds of each kind of query."""

    def ask(**params: str) -> None:
        answer = client.get("/api/v1/meters/tokens/query", params={**_MONTH, **params})
        answer.raise_for_status()
        assert answer.json()["data"]

    few = some(client, "subject")
    found = {
        "one subject by day, ms": timed(
            lambda n: ask(subject=few[n % len(few)], windowSize="DAY"), 40
        ),
        "busiest subject by day, ms": timed(
            lambda n: ask(subject="customer-00000", windowSize="DAY"), 10
        ),
        "all by day, ms": timed(lambda n: ask(windowSize="DAY"), 10),
        "all by day and model, ms": timed(lambda n: ask(windowSize="DAY", groupBy="model"), 5),
    }
    if shape.by_user:
        found["all by user, ms"] = timed(lambda n: ask(groupBy="user"), 5)
        users = some(client, "user")
        found["one user by day, ms"] = timed(
            lambda n: ask(**{"windowSize": "DAY", "filterGroupBy[user]": users[n % len(users)]}), 10
        )
    elif shape.subjects <= _MOST_ROWS:
        found["all by subject, ms"] = timed(lambda n: ask(groupBy="subject"), 3)
    return found


def ask_checks(server: Server, effort: Effort) -> dict[str, float]:
    """Checks of a value: the first of a subject, which calculates, and then many."""
    paths = [
        f"/api/v1/subjects/customer-{n:05d}/entitlements/feature_0/value"
        for n in range(effort.checked)
    ]
    marks = []
    with server.client() as client:
        for path in paths:
            begin = time.perf_counter()
            client.get(path).raise_for_status()
            marks.append((time.perf_counter() - begin) * 1000)
    many = flood_gets(server.url, paths, 32, effort.seconds)
    return {
        "first check, ms": statistics.median(marks),
        "checks a second, 32 connections": many["requests_per_second"],
        "p99 of these, ms": many["p99_ms"],
    }


def send_more(server: Server, shape: Shape, count: int) -> dict[str, float]:
    """Events a second until they are acknowledged, and until a query shows them all."""
    texts = events(count, seed=3, start=_LATER, subjects=shape.subjects, users=shape.users)
    bodies = batches(texts, _BATCH)
    with server.client() as client:
        begin = time.perf_counter()
        sent = post_all(server.url, bodies, connections=4)
        wanted = sum(_value(body) for body in bodies)
        while _sum_later(client) != wanted:
            time.sleep(0.05)
        took = time.perf_counter() - begin
    return {
        "more events: acknowledged/s": count / sent.seconds,
        "more events: visible/s": count / took,
    }


def _value(body: bytes) -> int:
    found: list[dict[str, dict[str, int]]] = json.loads(body)
    return sum(event["data"]["tokens_in"] for event in found)


def _sum_later(client: httpx.Client) -> int:
    answer = client.get("/api/v1/meters/tokens/query", params={"from": "2026-10-31T00:00:00Z"})
    data = answer.json()["data"]
    return int(data[0]["value"]) if data else 0


def measure(shape: Shape, effort: Effort) -> dict[str, float]:
    """All figures of one size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asyncio.run(fill(folder, 0, shape.events, subjects=shape.subjects, users=shape.users))
        with serving(folder) as server, server.client() as client:
            found = {
                "start to ready, s": server.seconds_to_ready,
                "meters ready, s": make_meters(client, shape),
            }
            for number in range(FEATURES):
                spec = {"key": f"feature_{number}", "name": "Tokens", "meterSlug": "tokens"}
                client.post("/api/v1/features", json=spec).raise_for_status()
        asyncio.run(entitle(f"sqlite:///{folder / 'meterline.db'}", effort.checked))
        with serving(folder) as server, server.client() as client:
            found |= ask_queries(client, shape)
            found |= ask_checks(server, effort)
            found["memory before more events, MiB"] = server.resident_mib()
            found |= send_more(server, shape, effort.burst)
            found["peak memory, MiB"] = server.peak_mib()
        stored = asyncio.run(bytes_by_table(folder))
        per_event = shape.events + effort.burst
        found["store, bytes an event"] = sum(stored.values()) / per_event
        found["of these, points"] = stored.get("points", 0) / per_event
    return found


async def bytes_by_table(folder: Path) -> dict[str, int]:
    """What the tables take on disk, without parts that were merged into others."""
    engine = ClickHouseEngine(folder / "clickhouse")
    try:
        found = await engine.query(
            "SELECT table, sum(bytes_on_disk) FROM system.parts"
            " WHERE active AND database = currentDatabase() GROUP BY table"
        )
        return {row[0]: int(row[1]) for row in found}
    finally:
        await engine.close()


def shapes(part: str, options: argparse.Namespace) -> Iterator[tuple[str, Shape]]:
    """The sizes of a part, each with its name."""
    base = Shape(events=options.base)
    if part == "events":
        for count in options.events:
            yield f"{count:,} events", replace(base, events=count)
    elif part == "subjects":
        for count in options.subjects:
            yield f"{count:,} subjects", replace(base, subjects=count)
    elif part == "meters":
        for count in options.meters:
            yield f"{count:,} meters", replace(base, events=options.base // 10, meters=count)
    else:
        for count in options.groups:
            yield f"{count:,} groups", replace(base, users=count, by_user=True)


def show(columns: Mapping[str, Mapping[str, float]]) -> None:
    """A table with a column for each size."""
    names = list(columns)
    print(f"\n| | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
    rows: dict[str, None] = {}
    for found in columns.values():
        rows.update(dict.fromkeys(found))
    for row in rows:
        cells = [_cell(columns[name].get(row)) for name in names]
        print(f"| {row} | {' | '.join(cells)} |")


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}" if value < 1 else f"{value:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--base", type=int, default=1_000_000, help="events, where others vary")
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--subjects", type=int, nargs="+", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--meters", type=int, nargs="+", default=[1, 10, 100])
    parser.add_argument("--groups", type=int, nargs="+", default=[10, 1_000, 100_000])
    parser.add_argument("--burst", type=int, default=200_000, help="events sent to each store")
    parser.add_argument("--seconds", type=float, default=3.0, help="of checks")
    parser.add_argument("--checked", type=int, default=200, help="subjects with entitlements")
    options = parser.parse_args(arguments)
    effort = Effort(options.burst, options.seconds, options.checked)
    run: Callable[[Shape, Effort], dict[str, float]] = measure
    for part in options.parts:
        columns = {}
        for name, shape in shapes(part, options):
            small = part == "meters" and shape.meters > 10
            columns[name] = run(shape, replace(effort, burst=effort.burst // (4 if small else 1)))
        show(columns)
        print(f"\nload (1, 5, 15 min) at the end: {load_average()}", flush=True)


if __name__ == "__main__":
    main()
