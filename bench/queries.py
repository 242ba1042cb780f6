"""Meter queries over many stored events, through the real server.

The events are written straight into the store; the meters then read them by their back-fill, which
is timed as well. Beside the all-subjects query runs one that parses the raw JSON.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from aggregator.stores import state
from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.stores.migrations import migrate
from aggregator.stores.state import Plan
from bench.serving import serving
from meterline.db.engine import Database
from meterline.kernel.clock import system_clock

_EVENTS_AN_OFFSET = 1000
_CHUNK = 1_000_000
_FILL = """
INSERT INTO events (ns, part, off, idx, status, inexact, id, source, type, subject, time,
    time_given, datacontenttype, data, data_base64, ext, ingested_at, stored_at)
SELECT 'default', 0, intDiv(number, 1000) + 1, number % 1000 + 1, 0, 0,
    toString(generateUUIDv4(number)), concat('gateway-', toString(number % 20)),
    if(number % 5 = 0, 'llm.audio', 'llm.usage'),
    if(r % 100 = 0, 'customer-00000', concat('customer-', leftPad(toString(intDiv(r, 100) % {subjects:UInt64} AS n), greatest(5, length(toString(n))), '0'))),
    toDateTime64('2026-10-01 00:00:00', 6, 'UTC') + toIntervalMillisecond(cityHash64(number, 1) % 2592000000),
    1, '',
    concat('{"model":"', ['gpt-4o', 'gpt-4o-mini', 'claude-sonnet', 'command-r', 'gemini-flash'][r % 5 + 1],
        '","region":"', ['eu-west-1', 'us-east-1', 'ap-south-1'][r % 3 + 1],
        '","tokens_in":', toString(intDiv(r, 7) % 8000), ',"tokens_out":', toString(intDiv(r, 11) % 2000),
        ',"tokens_cached":', toString(intDiv(r, 13) % 500), ',"cost":"0.0', toString(intDiv(r, 17) % 1000000),
        '","latency_ms":', toString(intDiv(r, 19) % 9000),
        ',"route":"/v1/chat/completions","status":"ok","user":"user-', toString(intDiv(r, 23) % {users:UInt64}), '"}'),
    '', '', now64(3), now64(3)
FROM (SELECT number, cityHash64(number) AS r FROM numbers({start:UInt64}, {count:UInt64}))
SETTINGS max_insert_threads = 2"""  # noqa: E501
_RAW = """
SELECT toStartOfDay(time, 'UTC') AS w, sum(toDecimal128OrNull(JSON_VALUE(data, '$.tokens_in'), 18))
FROM events WHERE ns = 'default' AND type = 'llm.usage' GROUP BY w ORDER BY w"""
_MONTH = {"from": "2026-10-01T00:00:00Z", "to": "2026-10-31T00:00:00Z", "windowSize": "DAY"}


async def fill(
    folder: Path,
    start: int,
    count: int,
    database_url: str | None = None,
    *,
    subjects: int = 10_000,
    users: int = 1_000,
) -> None:
    """Write events number `start` to `start + count` into the store of a data folder."""
    database = Database.open(database_url or f"sqlite:///{folder / 'meterline.db'}")
    await database.migrate()
    engine = ClickHouseEngine(folder / "clickhouse", query_timeout_seconds=600)
    try:
        await migrate(engine)
        for first in range(start, start + count, _CHUNK):
            chunk = min(_CHUNK, start + count - first)
            shape = {"subjects": subjects, "users": users}
            await engine.execute(_FILL, {"start": first, "count": chunk, **shape})
        last = (start + count) // _EVENTS_AN_OFFSET
        async with database.transaction() as conn:
            taken = await state.take_partition(conn, 0, "bench")
            plan = Plan(0, 1, last, system_clock(), ())
            await state.commit_plan(conn, plan, taken.epoch, system_clock())
    finally:
        await engine.close()
        await database.close()


async def parse_raw(folder: Path) -> float:
    """Median milliseconds of the query that parses every event's JSON."""
    engine = ClickHouseEngine(folder / "clickhouse", query_timeout_seconds=600)
    try:
        marks = []
        for _ in range(3):
            begin = time.perf_counter()
            await engine.query(_RAW)
            marks.append((time.perf_counter() - begin) * 1000)
        return statistics.median(marks)
    finally:
        await engine.close()


async def stored_bytes(folder: Path) -> int:
    """Bytes of what the store keeps; what was merged away stays on the disk for some minutes."""
    engine = ClickHouseEngine(folder / "clickhouse", query_timeout_seconds=600)
    try:
        found = await engine.query(
            "SELECT sum(bytes_on_disk) FROM system.parts"
            " WHERE active AND database = currentDatabase()"
        )
        return int(found[0][0])
    finally:
        await engine.close()


def timed(call: Callable[[int], object], times: int) -> float:
    """Median milliseconds of `call`, after one call that is not counted."""
    call(0)
    marks = []
    for number in range(times):
        begin = time.perf_counter()
        call(number + 1)
        marks.append((time.perf_counter() - begin) * 1000)
    return statistics.median(marks)


def ready_seconds(client: httpx.Client) -> float:
    """Seconds from the creation of a meter to its being ready."""
    spec = {
        "slug": "tokens",
        "eventType": "llm.usage",
        "aggregation": "SUM",
        "valueProperty": "$.tokens_in",
        "groupBy": {"model": "$.model", "region": "$.region"},
    }
    begin = time.perf_counter()
    client.post("/api/v1/meters", json=spec).raise_for_status()
    while client.get("/api/v1/meters/tokens").json()["status"]["state"] != "ready":
        time.sleep(0.05)
    return time.perf_counter() - begin


def queries(client: httpx.Client) -> dict[str, float]:
    """Median milliseconds of each kind of query."""

    def ask(**params: str | list[str]) -> None:
        answer = client.get("/api/v1/meters/tokens/query", params={**_MONTH, **params})
        answer.raise_for_status()
        assert answer.json()["data"]

    return {
        "one subject by day": timed(lambda n: ask(subject=f"customer-{n * 37:05d}"), 40),
        "busiest subject by day": timed(lambda n: ask(subject="customer-00000"), 10),
        "all subjects by day": timed(lambda n: ask(), 10),
        "all subjects by day, odd ends": timed(
            lambda n: ask(**{"from": f"2026-10-01T00:00:{n + 10:02d}.5Z"}), 10
        ),
        "all subjects by day and model": timed(lambda n: ask(groupBy="model"), 5),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[10_000_000, 50_000_000])
    options = parser.parse_args(arguments)
    done = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for total in options.events:
            asyncio.run(fill(folder, done, total - done))
            raw = asyncio.run(parse_raw(folder))
            with serving(folder) as server, server.client() as client:
                client.delete("/api/v1/meters/tokens")
                ready = ready_seconds(client)
                print(f"{total:,} events: ready to serve in {server.seconds_to_ready:.1f} s")
                print(f"  new meter ready in {ready:.1f} s")
                answers = queries(client)
            for label, median in answers.items():
                print(f"  {label:<32} {median:>8.1f} ms")
            stored = asyncio.run(stored_bytes(folder)) / total
            print(f"  {'stored, an event':<32} {stored:>8.0f} bytes")
            ratio = raw / answers["all subjects by day"]
            print(f"  {'parsing the raw JSON, by day':<32} {raw:>8.1f} ms   ratio {ratio:.0f}")
            done = total


if __name__ == "__main__":
    main()
