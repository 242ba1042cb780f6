"""Checks of plans: one decision call a request, with every kind of limit.

python -m bench.limits [--seconds 5] [--connections 64] [--subjects 1000]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx
import uvloop

from bench.flood import flood
from bench.serving import serving

_MANY = 10**6
PLANS = {
    "monthly limits": {"monthlyTokenLimit": 10**12, "monthlyCostLimitUsd": 10**9},
    "all limits": {
        "monthlyTokenLimit": 10**12,
        "monthlyCostLimitUsd": 10**9,
        "requestsPerMinute": _MANY,
        "requestsPerHour": _MANY,
        "requestsPerDay": _MANY,
        "tokensPerMinute": 10**12,
    },
}


def requests(subjects: int) -> list[bytes]:
    """A check for each subject."""
    bodies = [
        json.dumps({"subject": f"customer-{n:05d}", "estimate": {"tokens": 100}}).encode()
        for n in range(subjects)
    ]
    return [
        b"POST /api/v1/check HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        for body in bodies
    ]


def run(url: str, subjects: int, connections: int, seconds: float) -> dict[str, float]:
    """One run of the client, in a process of its own."""
    command = [sys.executable, "-m", "bench.limits", "--flood", url, "--subjects", str(subjects)]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(command, stdout=-1, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def prepare(client: httpx.Client, name: str, limits: dict[str, int], subjects: int) -> None:
    """Give all subjects a plan with these limits."""
    key = name.replace(" ", "-")
    client.post("/api/v1/plans", json={"key": key, **limits}).raise_for_status()
    for number in range(subjects):
        path = f"/api/v1/subjects/customer-{number:05d}/plan"
        client.put(path, json={"plan": key}).raise_for_status()
        body = {"subject": f"customer-{number:05d}"}
        client.post("/api/v1/check", json=body).raise_for_status()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=1_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.flood:
        made = requests(options.subjects)
        seen = uvloop.run(flood(options.flood, made, options.connections, options.seconds))
        print(json.dumps(seen))
        return
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as server:
        with server.client() as client:
            for plan, limits in PLANS.items():
                prepare(client, plan, limits, options.subjects)
                for connections in (options.connections, 1):
                    before = cpu_seconds(server.pid)
                    found = run(server.url, options.subjects, connections, options.seconds)
                    cost = cpu_seconds(server.pid) - before
                    count = found["requests_per_second"] * options.seconds
                    print(
                        f"  {plan:<16} {connections:>4} connections"
                        f"  {found['requests_per_second']:>8,.0f}/s"
                        f"   p50 {found['p50_ms']:.1f} ms, p99 {found['p99_ms']:.1f} ms"
                        f"   {cost / count * 1e6:.0f} us of the server's CPU each"
                    )
        print(f"  memory {server.resident_mib():,.0f} MiB")


if __name__ == "__main__":
    main()
