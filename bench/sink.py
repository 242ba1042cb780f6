"""From a topic of Kafka to the store: `python -m bench.sink [--events 1000000]`.

A topic is filled beforehand; then real processes of `meterline serve` read all of it, each time
with an empty store and database: one sink over ClickHouse's protocol (the bridge of the tests),
one process of the role `all` with the embedded store, and two sinks that share the partitions.
Broker, PostgreSQL, store and whoever looks on are on this machine.

A rate counts from the first event that was stored to the last: what a start takes is told apart.
CPU is that of each process, children included, by the events it was used for.
"""

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import asyncpg
import httpx

from bench.cluster import (
    Backends,
    CpuMeter,
    backends,
    fill_topic,
    load_average,
    peak_mib,
    topic_options,
)
from tests.support.cluster import Cluster, ClusterProcess
from tests.support.server import eventually

_LOOK_SECONDS = 0.1
_GIVE_UP_SECONDS = 1800.0
_KINDS = ("one", "all", "two")
_MONTHS = {"from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}


def meters(count: int, kind: str = "llm.usage") -> list[dict[str, object]]:
    """A COUNT, and SUMs that differ in value or groups."""
    values = ("tokens_in", "tokens_out", "cost", "latency_ms", "tokens_cached")
    groups = (("model",), ("region",), ("model", "region"), ("route",), ("status",), ())
    specs: list[dict[str, object]] = [
        {"slug": "calls", "eventType": kind, "aggregation": "COUNT"},
    ]
    for number in range(count - 1):
        named = groups[number // len(values) % len(groups)]
        extra = {} if number < 30 else {"user": "$.user"}
        specs.append(
            {
                "slug": f"m_{number}",
                "eventType": kind,
                "aggregation": "SUM",
                "valueProperty": f"$.{values[number % len(values)]}",
                "groupBy": {**{name: f"$.{name}" for name in named}, **extra},
            }
        )
    return specs


@dataclass(frozen=True)
class Run:
    """One leg: what it stored, how fast, and at what price."""

    events: int
    seconds: float
    """From the first plan that was committed to the last."""
    stored_meanwhile: int
    whole_seconds: float
    """From the process being ready."""
    cpu: Mapping[str, float]
    peak: Mapping[str, float]
    partitions: Sequence[frozenset[str]]
    plans: int

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.stored_meanwhile / self.seconds if self.seconds else 0.0


class Watch:
    """How far the sinks of a deployment are, by their positions in the database."""

    def __init__(self, cluster: Cluster) -> None:
        self._runner = asyncio.Runner()
        url = cluster.environment["METERLINE_DATABASE__URL"]
        self._connection = self._runner.run(asyncpg.connect(url))

    def close(self) -> None:
        """Look no more."""
        self._runner.run(self._connection.close())
        self._runner.close()

    def stored(self) -> int:
        """Events that are committed, of all partitions."""
        statement = "SELECT coalesce(sum(position), 0) FROM sink_partitions"
        return int(self._runner.run(self._connection.fetchval(statement)))

    def plans(self) -> int:
        """How many steps it took to store them: each costs something, whatever is in it."""
        return int(self._runner.run(self._connection.fetchval("SELECT plans FROM sink_state")))

    def until(self, wanted: int, processes: Sequence[ClusterProcess]) -> tuple[int, float, float]:
        """Wait for all; what was stored at the first look that saw some, then, and now."""
        first, first_at = 0, 0.0
        limit = time.perf_counter() + _GIVE_UP_SECONDS
        while True:
            found, now = self.stored(), time.perf_counter()
            if found and not first:
                first, first_at = found, now
            if found >= wanted:
                return first, first_at, now
            if now > limit or not all(one.is_running for one in processes):
                tails = "\n".join(one.tail(20) for one in processes)
                raise SystemExit(f"{found:,} of {wanted:,} events were stored\n{tails}")
            time.sleep(_LOOK_SECONDS)


def run_sinks(
    backends: Backends, topic: str, options: argparse.Namespace, *, sinks: int, label: str
) -> Run:
    """Sinks of their own over the bridge."""
    specs = meters(options.meters)
    settings = dict(one.split("=", 1) for one in options.set)
    cluster = backends.cluster(label, topic, options.partitions, specs, settings)
    with cluster, cluster.explaining():
        # It makes the meters. It is not ready before a sink has read what waits in the topic.
        api = cluster.add("api").spawn()
        eventually(lambda: _has_meters(api), "the meters are there", 60.0)
        processes = [cluster.add("sink") for _ in range(sinks)]
        found = _run(backends, cluster, processes, options.events)
        with cluster.apis[0].client() as client:
            _check(client, options.events)
    return found


def _has_meters(api: ClusterProcess) -> bool:
    try:
        with api.client() as client:
            return bool(client.get("/api/v1/meters").json())
    except httpx.TransportError:
        return False


def run_all(
    backends: Backends, topic: str, options: argparse.Namespace, *, label: str = "all"
) -> Run:
    """One process that is everything, with the engine in it."""
    settings = dict(one.split("=", 1) for one in options.set)
    embedded = {**settings, "store.kind": "embedded"}
    specs = meters(options.meters)
    cluster = backends.cluster(label, topic, options.partitions, specs, embedded)
    with cluster, cluster.explaining():
        process = cluster.add("all")
        # Its meters are made first, over a topic without events.
        asyncio.run(fill_topic(topic_options(backends.broker.bootstrap, f"{label}-none",
                                          options.partitions), 0))  # fmt: skip
        process.environment = {**cluster.environment, "METERLINE_KAFKA__TOPIC": f"{label}-none"}
        process.spawn().wait_ready()
        process.stop()
        process.environment = dict(cluster.environment)
        found = _run(backends, cluster, [process], options.events)
        with process.client() as client:
            _check(client, options.events)
    return found


def _run(
    backends: Backends, cluster: Cluster, processes: Sequence[ClusterProcess], events: int
) -> Run:
    for one in processes:
        one.spawn()
    for one in processes:
        one.wait_ready()
    ready = time.perf_counter()
    pids = {**backends.pids(), **{one.name: one.pid for one in processes}}
    meter = CpuMeter(pids)
    with closing(Watch(cluster)) as watch:
        first, first_at, done = watch.until(events, processes)
        plans = watch.plans()
    used = meter.used()
    shares = [
        frozenset(name for name, _ in one.metric("meterline_sink_lag_events").items())
        for one in processes
    ]
    peaks = {name: peak_mib(pid) for name, pid in pids.items()}
    return Run(events, done - first_at, events - first, done - ready, used, peaks, shares, plans)


def _check(client: httpx.Client, expected: int) -> None:
    """The meters say so, too."""
    data = client.get("/api/v1/meters/calls/query", params=_MONTHS).json()["data"]
    counted = data[0]["value"] if data else 0
    if counted != expected:
        raise SystemExit(f"{counted:,} events are counted, not {expected:,}")


def show(name: str, run: Run) -> None:
    """A row of the table, and what it is made of below."""
    used = sum(run.cpu.values())
    print(f"| {name} | {run.rate:,.0f} events/s | {run.events / run.whole_seconds:,.0f} events/s |"
          f" {1e6 * used / run.events:.1f} µs | {run.events // max(1, run.plans):,} |"
          f" {load_average()} |", flush=True)  # fmt: skip


def details(runs: Mapping[str, Run]) -> None:
    """CPU and memory by process."""
    print("\n| | process | CPU an event | peak memory | partitions |\n|---|---|---|---|---|")
    for name, run in runs.items():
        own = list(run.cpu)[-len(run.partitions) :]
        for process, seconds in run.cpu.items():
            parts = run.partitions[own.index(process)] if process in own else ()
            shown = ", ".join(sorted(one.split('"')[1] for one in parts))
            print(f"| {name} | {process} | {1e6 * seconds / run.events:.2f} µs |"
                  f" {run.peak[process]:,.0f} MiB | {shown} |")  # fmt: skip


def disjoint(run: Run, partitions: int) -> bool:
    """Whether the processes had all partitions, and none was of two."""
    counts = [len(one) for one in run.partitions]
    return sum(counts) == len(frozenset().union(*run.partitions)) == partitions and all(counts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--meters", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=_KINDS, default=_KINDS)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings")
    options = parser.parse_args(arguments)
    with backends() as servers:
        topic = "bench"
        kafka = topic_options(servers.broker.bootstrap, topic, options.partitions)
        size = asyncio.run(fill_topic(kafka, options.events))
        print(f"{options.events:,} events of {size:.0f} bytes, {options.partitions} partitions,"
              f" {options.meters} meters\n")  # fmt: skip
        print("| | first to last event | from the ready process | CPU of all, an event |", end="")
        print(" events a plan | load 1, 5, 15 min |\n|---|---|---|---|---|---|")
        runs = {}
        if "one" in options.only:
            runs["one sink"] = run_sinks(servers, topic, options, sinks=1, label="one")
            show("one sink", runs["one sink"])
        if "all" in options.only:
            runs["role all, embedded store"] = run_all(servers, topic, options)
            show("role all, embedded store", runs["role all, embedded store"])
        if "two" in options.only:
            runs["two sinks"] = run_sinks(servers, topic, options, sinks=2, label="two")
            show("two sinks", runs["two sinks"])
        details(runs)
        if "two" in options.only:
            apart = disjoint(runs["two sinks"], options.partitions)
            print(f"\nTwo sinks: partitions {'disjoint and complete' if apart else 'NOT disjoint'}")


if __name__ == "__main__":
    main()
