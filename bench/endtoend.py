"""From HTTP to a query's answer: sent, acknowledged, deduplicated, stored, visible.

Beside it, in the same run: what the engine alone does with `INSERT … FORMAT JSONEachRow` of the
same events into a table like `events`.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.stores.migrations import migrate
from bench.cluster import CpuMeter, load_average
from bench.serving import Server, folder_bytes, serving
from bench.traffic import batches, events, post_all

BATCH = 1000
_MERGED_SECONDS = 60
"""For the store to merge what came in, and for the log to give back what it does not need."""
_VALUES = ("tokens_in", "tokens_out", "cost", "latency_ms", "tokens_cached")


def meters(per_type: Sequence[int]) -> list[dict[str, object]]:
    """Meters over the benchmark's types: as many on each as `per_type` says."""
    specs: list[dict[str, object]] = []
    for kind, count in enumerate(per_type):
        event_type = f"llm.usage.{kind}" if len(per_type) > 1 else "llm.usage"
        for number in range(count):
            group_by = {"model": "$.model"} if number < 5 else {"region": "$.region"}
            specs.append(
                {
                    "slug": f"m{kind}_{number}",
                    "eventType": event_type,
                    "aggregation": "SUM",
                    "valueProperty": f"$.{_VALUES[number % 5]}",
                    "groupBy": group_by,
                }
            )
    return specs


def sustained(
    server: Server, bodies: Sequence[bytes], slug: str, expected: int
) -> tuple[float, float]:
    """Send all bodies; seconds until the last was acknowledged, and until all were visible."""
    with server.client() as client:
        count = {"slug": "all_calls", "eventType": slug, "aggregation": "COUNT"}
        client.post("/api/v1/meters", json=count).raise_for_status()
        begin = time.perf_counter()
        sent = post_all(server.url, bodies, connections=4)
        while True:
            answer = client.get("/api/v1/meters/all_calls/query").json()["data"]
            if answer and answer[0]["value"] == expected:
                return sent.seconds, time.perf_counter() - begin
            time.sleep(0.2)


def engine_alone(folder: Path, bodies: Sequence[bytes]) -> float:
    """Seconds that the engine needs to read the same events into the same table."""
    rows = [
        b"\n".join(
            json.dumps({**event, "ns": "default", "data": json.dumps(event["data"])}).encode()
            for event in json.loads(body)
        )
        for body in bodies
    ]
    columns = ("ns", "id", "source", "type", "subject", "time", "data")
    settings: dict[str, str | int] = {
        "input_format_skip_unknown_fields": 1,
        "date_time_input_format": "best_effort",
        "async_insert": 0,
    }

    async def run() -> float:
        engine = ClickHouseEngine(folder)
        try:
            await migrate(engine)
            begin = time.perf_counter()
            for start in range(0, len(rows), 20):
                await engine.load(
                    "events", columns, "JSONEachRow", b"\n".join(rows[start : start + 20]), settings
                )
            return time.perf_counter() - begin
        finally:
            await engine.close()

    return asyncio.run(run())


def freshness(server: Server, seconds: int, rate: int) -> list[float]:
    """Seconds from an acknowledgement to its event in an answer, at `rate` events a second."""
    per_request = 100
    bodies = batches(events(rate * seconds, seed=7), per_request)
    marks: list[float] = []
    with server.client() as client:
        spec = {"slug": "probes", "eventType": "probe", "aggregation": "COUNT"}
        client.post("/api/v1/meters", json=spec).raise_for_status()
        import threading

        load = threading.Thread(
            target=post_all,
            args=(server.url, bodies),
            kwargs={"connections": 4, "rate_per_second": rate / per_request},
        )
        load.start()
        number = 0
        while load.is_alive():
            number += 1
            now = datetime.now(UTC).isoformat()
            probe = {"specversion": "1.0", "id": f"p{number}", "source": "bench", "type": "probe",
                     "subject": "bench", "time": now}  # fmt: skip
            headers = {"content-type": "application/cloudevents+json"}
            client.post("/api/v1/events", content=json.dumps(probe), headers=headers)
            acknowledged = time.perf_counter()
            while True:
                data = client.get("/api/v1/meters/probes/query").json()["data"]
                if data and data[0]["value"] == number:
                    break
                time.sleep(0.005)
            marks.append(time.perf_counter() - acknowledged)
        load.join()
    return marks


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--fresh-seconds", type=int, default=20)
    options = parser.parse_args(arguments)
    count = options.events // BATCH * BATCH
    print(f"end to end, {count:,} events in batches of {BATCH:,}, client on the same machine")
    one_type = batches(events(count, seed=1), BATCH)
    print(f"  {sum(map(len, one_type)) / count:.0f} bytes an event")
    rate = _end_to_end("3 meters, 1 type", one_type, [2], count)
    with tempfile.TemporaryDirectory() as folder:
        alone = count / engine_alone(Path(folder), one_type)
    print(f"  engine alone, JSONEachRow      {alone:>10,.0f} events/s   ratio {rate / alone:.2f}")
    many = batches(events(count, seed=2, types=20), BATCH)
    hundred = _end_to_end("100 meters, 20 types", many, [9, *[4] * 2, *[5] * 16, 2], count)
    print(f"  100 meters against 3           {'':>10}            ratio {hundred / rate:.2f}")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        marks = sorted(freshness(server, options.fresh_seconds, 10_000))
        print(
            f"  ack to visible at 10,000/s     p50 {marks[len(marks) // 2]:.3f} s"
            f"   p99 {marks[int(0.99 * len(marks))]:.3f} s   ({len(marks)} probes)"
        )


def _end_to_end(label: str, bodies: Sequence[bytes], per_type: Sequence[int], count: int) -> float:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server:
        specs = meters(per_type)
        with server.client() as client:
            for spec in specs:
                client.post("/api/v1/meters", json=spec).raise_for_status()
        event_type = "llm.usage.0" if len(per_type) > 1 else "llm.usage"
        expected = sum(body.count(b'"type":"%s"' % event_type.encode()) for body in bodies)
        meter = CpuMeter({"server": server.pid})
        acked, visible = sustained(server, bodies, event_type, expected)
        used = 1e6 * meter.used()["server"] / count
        size = folder_bytes(Path(folder)) / count
        load = load_average()
        time.sleep(_MERGED_SECONDS)
        merged = folder_bytes(Path(folder)) / count
        print(
            f"  {label:<30} {count / visible:>10,.0f} events/s   acked {count / acked:,.0f}/s,"
            f" peak memory {server.peak_mib():,.0f} MiB,"
            f" disk {size:.0f} B/event and {merged:.0f} after {_MERGED_SECONDS} s,"
            f" ready in {server.seconds_to_ready:.1f} s,"
            f" CPU of the server {used:.1f} µs/event, load {load}"
        )
        return count / visible


if __name__ == "__main__":
    main()
