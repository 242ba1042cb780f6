"""Checks: many subjects with three grants each, and many events behind them.

python -m bench.checks [--events 1000000 10000000] [--database postgresql]

With PostgreSQL the server's programs must be installed: a cluster of its own is started, durable as
in production, on the same machine.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
from sqlalchemy import insert, select
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
from tests.support.postgres import PostgresCluster, find_binaries

FEATURES = 20
FULL_SUBJECTS = 20
"""Subjects that have all features; the others have the first."""
_FROM = datetime(2026, 10, 1, tzinfo=UTC)
_LIMITS = EntitlementLimits()


async def entitle(url: str, subjects: int) -> None:
    """Write features, entitlements and grants straight into the database."""
    database = Database.open(url)
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
            await _copy_first(conn, subjects)
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


async def _copy_first(conn: AsyncConnection, subjects: int) -> None:
    """Entitle all other subjects as the first one, by two statements instead of thousands."""
    table, grants = entitlement_store.entitlements, grant_store.grants
    first = dict(
        (
            await conn.execute(
                select(table).where(
                    table.c.subject == "customer-00000", table.c.feature_key == "feature_0"
                )
            )
        )
        .one()
        ._mapping
    )
    found = await conn.execute(select(grants).where(grants.c.entitlement_id == first["id"]))
    of_first = [dict(row._mapping) for row in found]
    others = range(FULL_SUBJECTS, subjects)
    rows = [{**first, "id": f"0{n:025d}", "subject": f"customer-{n:05d}"} for n in others]
    await conn.execute(insert(table), rows)
    copies = [
        {**grant, "id": f"{place}{n:025d}", "entitlement_id": f"0{n:025d}"}
        for n in others
        for place, grant in enumerate(of_first)
    ]
    await conn.execute(insert(grants), copies)


def flood(url: str, paths: Sequence[str], connections: int, seconds: float) -> dict[str, float]:
    """One run of the client, in a process of its own."""
    command = [sys.executable, "-m", "bench.flood", url, "-", str(connections), str(seconds)]
    done = subprocess.run(command, input="\n".join(paths), stdout=-1, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(folder: Path, seconds: float, environment: Mapping[str, str], subjects: int) -> float:
    """Print the figures; the median latency in ms of one check at one connection."""
    root = "/api/v1/subjects/customer-"
    values = [f"{root}{n:05d}/entitlements/feature_0/value" for n in range(subjects)]
    access = [f"{root}{n:05d}/access" for n in range(FULL_SUBJECTS)]
    with serving(folder, environment) as server:
        with server.client() as client:
            begin = time.perf_counter()
            for path in values:
                client.get(path).raise_for_status()
            first = (time.perf_counter() - begin) / subjects
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
    parser.add_argument("--subjects", type=int, default=10_000)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    options = parser.parse_args(arguments)
    costs = []
    for count in options.events:
        with tempfile.TemporaryDirectory() as name, database_in(options.database, name) as url:
            folder = Path(name)
            environment = {}
            if options.database == "postgresql":
                environment["METERLINE_DATABASE__URL"] = url
            asyncio.run(fill(folder, 0, count, url))
            with serving(folder, environment) as server, server.client() as client:
                ready_seconds(client)
                _features(client)
            asyncio.run(entitle(url, options.subjects))
            who = f"{options.subjects:,} subjects with 3 grants each"
            print(f"{count:,} events, {who}, {options.database}")
            costs.append(measure(folder, options.seconds, environment, options.subjects))
    if len(costs) > 1:
        print(f"one check, {options.events[-1]:,} against {options.events[0]:,} events:"
              f" ratio {costs[-1] / costs[0]:.2f}")  # fmt: skip


@contextmanager
def database_in(kind: str, folder: str) -> Iterator[str]:
    """The URL of an empty database: of the folder, or of a PostgreSQL cluster of its own."""
    if kind == "sqlite":
        yield f"sqlite:///{folder}/meterline.db"
        return
    binaries = find_binaries()
    if binaries is None:
        raise SystemExit("PostgreSQL's programs (initdb, postgres, psql) are not installed")
    with PostgresCluster(binaries, durable=True) as cluster:
        yield cluster.create_database(empty=True)


def _features(client: httpx.Client) -> None:
    for number in range(FEATURES):
        spec = {"key": f"feature_{number}", "name": "Tokens", "meterSlug": "tokens"}
        client.post("/api/v1/features", json=spec).raise_for_status()


if __name__ == "__main__":
    main()
