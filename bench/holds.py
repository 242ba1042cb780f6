"""Holds: opened and confirmed over HTTP, on SQLite and on PostgreSQL.

python -m bench.holds [--connections 64] [--seconds 10] [--subjects 64]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from bench.serving import serving
from tests.support.postgres import PostgresCluster, find_binaries


def prepare(client: httpx.Client, subjects: int) -> None:
    """A meter, a feature, and subjects with more than they will use."""
    meter = {
        "slug": "tokens", "eventType": "llm.usage", "aggregation": "SUM",
        "valueProperty": "$.tokens",
    }  # fmt: skip
    client.post("/api/v1/meters", json=meter).raise_for_status()
    client.post(
        "/api/v1/features", json={"key": "tokens", "meterSlug": "tokens"}
    ).raise_for_status()
    entitlement = {
        "type": "metered", "featureKey": "tokens", "usagePeriod": {"interval": "MONTH"},
        "issueAfterReset": 10**12,
    }  # fmt: skip
    for number in range(subjects):
        path = f"/api/v1/subjects/subject-{number}/entitlements"
        client.post(path, json=entitlement).raise_for_status()
        client.get(f"{path}/tokens/value").raise_for_status()


def flood(url: str, connections: int, seconds: float, subjects: int) -> dict[str, float]:
    """One run of the client, in a process of its own."""
    numbers = [str(connections), str(seconds), str(subjects)]
    command = [sys.executable, "-m", "bench.pairs", url, *numbers]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def cpu_seconds(pid: int) -> float:
    """What a process has used of processors, its sink included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(name: str, environment: Mapping[str, str], options: argparse.Namespace) -> None:
    """Print a row for many subjects, and one for a single one."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), environment) as server,
        server.client() as client,
    ):
        prepare(client, options.subjects)
        flood(server.url, options.connections, 2.0, options.subjects)
        for subjects in (options.subjects, 1):
            before = cpu_seconds(server.pid)
            seen = flood(server.url, options.connections, options.seconds, subjects)
            pairs = seen["pairs_per_second"] * options.seconds
            cost = (cpu_seconds(server.pid) - before) / pairs
            print(
                f"  {name:<12}{subjects:>5} subjects {seen['pairs_per_second']:>8,.0f} pairs/s,"
                f" {cost * 1e6:.0f} µs of CPU each"
                f"   open p50 {seen['open_p50_ms']:.1f} ms, p99 {seen['open_p99_ms']:.1f} ms;"
                f" confirm p50 {seen['confirm_p50_ms']:.1f}, p99 {seen['confirm_p99_ms']:.1f}",
                flush=True,
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--subjects", type=int, default=64)
    parser.add_argument("--postgresql", action="store_true", help="only on PostgreSQL")
    options = parser.parse_args(arguments)
    print(f"open + confirm, {options.connections} connections")
    if not options.postgresql:
        measure("SQLite", {}, options)
    binaries = find_binaries()
    if binaries is None:
        print("  PostgreSQL is not installed")
        return
    with PostgresCluster(binaries, durable=True) as cluster:
        url = cluster.create_database(empty=True)
        measure("PostgreSQL", {"METERLINE_DATABASE__URL": url}, options)


if __name__ == "__main__":
    main()
