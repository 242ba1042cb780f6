"""Checks: 10,000 subjects with three grants each, and many events behind them.

python -m bench.checks [--events 1000000 10000000]
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
from sqlalchemy.ext.asyncio import AsyncConnection

from bench.queries import fill, ready_seconds
from bench.serving import serving
from entitlements.limits import EntitlementLimits
from entitlements.model import EntitlementType, Feature
from entitlements.specs import (
    EntitlementSpec,
    GrantSpec,
    RecurrenceSpec,
    make_entitlement,
    make_grant,
)
from entitlements.stores import entitlements as entitlement_store
from entitlements.stores import features as feature_store
from entitlements.stores import grants as grant_store
from meterline.db.engine import Database
from meterline.kernel.clock import system_clock
from meterline.kernel.ids import new_ulid
from meterline.kernel.periods import parse_interval

SUBJECTS = 10_000
FEATURES = 20
FULL_SUBJECTS = 20
"""Subjects that have all features; the others have the first."""
_FROM = datetime(2026, 10, 1, tzinfo=UTC)
_LIMITS = EntitlementLimits()


async def entitle(folder: Path) -> None:
    """Write features, entitlements and grants straight into the database."""
    database = Database.open(f"sqlite:///{folder / 'meterline.db'}")
    try:
        async with database.read() as conn:
            features = [
                await feature_store.find(conn, "default", f"feature_{n}") for n in range(FEATURES)
            ]
        async with database.transaction() as conn:
            for number in range(FULL_SUBJECTS):
                for feature in features:
                    assert feature is not None
                    await _entitle(conn, feature, f"customer-{number:05d}")
            for number in range(FULL_SUBJECTS, SUBJECTS):
                await _copy_first(conn, number)
    finally:
        await database.close()


async def _entitle(conn: AsyncConnection, feature: Feature, subject: str) -> None:
    now = system_clock()
    spec = EntitlementSpec(
        EntitlementType.METERED,
        feature.key,
        usage_period=RecurrenceSpec(parse_interval("MONTH"), anchor=_FROM),
        measure_from=_FROM,
    )
    entitlement = make_entitlement(
        spec, feature, subject, entitlement_id=new_ulid(now), now=now, limits=_LIMITS
    )
    await entitlement_store.add(conn, entitlement)
    for number in range(3):
        grant = GrantSpec(Decimal(10**7), _FROM, priority=number + 1)
        issued = make_grant(
            grant, entitlement, grant_id=new_ulid(now), created_at=now, now=now, limits=_LIMITS
        )
        await grant_store.add(conn, issued)


async def _copy_first(conn: AsyncConnection, number: int) -> None:
    """Entitle another subject as the first one, by two statements instead of dozens."""
    first = "subject = 'customer-00000' AND feature_key = 'feature_0'"
    of = f"(SELECT id FROM entitlements WHERE {first})"
    copies = {
        entitlement_store.entitlements: ("id", {"subject": f"'customer-{number:05d}'"}),
        grant_store.grants: ("entitlement_id", {"entitlement_id": f"printf('0%025d', {number})"}),
    }
    for table, (owner, changed) in copies.items():
        fresh = {"id": f"printf('%d%024d0', row_number() OVER () - 1, {number})"}
        if owner == "id":
            fresh = {"id": f"printf('0%025d', {number})"}
        columns = [f'"{column.name}"' for column in table.columns]
        values = [
            {**fresh, **changed}.get(column.name, f'"{column.name}"') for column in table.columns
        ]
        await conn.exec_driver_sql(
            f"INSERT INTO {table.name} ({', '.join(columns)})"
            f" SELECT {', '.join(values)} FROM {table.name} WHERE {owner} = {of}"
        )


def flood(url: str, paths: Sequence[str], connections: int, seconds: float) -> dict[str, float]:
    """One run of the client, in a process of its own."""
    command = [sys.executable, "-m", "bench.flood", url, "-", str(connections), str(seconds)]
    done = subprocess.run(command, input="\n".join(paths), stdout=-1, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(folder: Path, seconds: float) -> float:
    """Print the figures; the median latency in ms of one check at one connection."""
    root = "/api/v1/subjects/customer-"
    values = [f"{root}{n:05d}/entitlements/feature_0/value" for n in range(SUBJECTS)]
    access = [f"{root}{n:05d}/access" for n in range(FULL_SUBJECTS)]
    with serving(folder) as server:
        with server.client() as client:
            begin = time.perf_counter()
            for path in values:
                client.get(path).raise_for_status()
            first = (time.perf_counter() - begin) / SUBJECTS
            for path in access:
                client.get(path).raise_for_status()
        one = flood(server.url, values, 32, seconds)
        alone = flood(server.url, values, 1, seconds)
        every = flood(server.url, access, 1, seconds)
    print(f"  first check of a subject         {first * 1000:>8.1f} ms")
    print(
        f"  checks, 32 connections           {one['requests_per_second']:>8,.0f}/s"
        f"   p50 {one['p50_ms']:.1f} ms, p99 {one['p99_ms']:.1f} ms"
    )
    print(f"  one check, 1 connection          {alone['p50_ms']:>8.2f} ms")
    ratio = every["p50_ms"] / alone["p50_ms"]
    print(
        f"  access with {FEATURES} features          {every['p50_ms']:>8.2f} ms   ratio {ratio:.1f}"
    )
    return alone["p50_ms"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args(arguments)
    costs = []
    for count in options.events:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            asyncio.run(fill(folder, 0, count))
            with serving(folder) as server, server.client() as client:
                ready_seconds(client)
                _features(client)
            asyncio.run(entitle(folder))
            print(f"{count:,} events, {SUBJECTS:,} subjects with 3 grants each")
            costs.append(measure(folder, options.seconds))
    if len(costs) > 1:
        print(f"one check, {options.events[-1]:,} against {options.events[0]:,} events:"
              f" ratio {costs[-1] / costs[0]:.2f}")  # fmt: skip


def _features(client: httpx.Client) -> None:
    for number in range(FEATURES):
        spec = {"key": f"feature_{number}", "name": "Tokens", "meterSlug": "tokens"}
        client.post("/api/v1/features", json=spec).raise_for_status()


if __name__ == "__main__":
    main()
