"""A deployment with backends of its own, for faults to be done to, and what a fault test asks."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import truth
from tests.faults.network import Link
from tests.faults.traffic import Traffic
from tests.support.clickhouse import ClickHouseBridge
from tests.support.cluster import Cluster, ClusterProcess
from tests.support.kafka import KafkaBroker
from tests.support.postgres import PostgresCluster
from tests.support.server import eventually

LONG = os.environ.get("METERLINE_LONG_FAULTS") == "1"
"""Faults as long, and limits as wide, as in production; and longer schedules."""

FROZEN_SECONDS = 60.0 if LONG else 12.0
"""How long a broker is frozen: several times as long as sinks may be silent."""

SETTINGS = {
    "sink.linger_seconds": "0.05",
    "sink.retry_seconds": "0.2",
    "sink.max_plan_events": "300",  # many plans, so that faults meet them at every step
    "sink.stalled_after_seconds": "4",
    "kafka.max_waiting_bytes": str(8 << 20),
    "clickhouse.connect_timeout_seconds": "2",
    "clickhouse.statement_timeout_seconds": "10",
    "database.wait_seconds": "5",
    "database.connect_seconds": "3",
    "auth.wait_seconds": "2",
    # A sink that hangs in a transaction holds what it has locked for so long.
    "database.idle_seconds": "8",
} | (
    {}
    if LONG
    else {
        "kafka.session_timeout_seconds": "2.5",
        "kafka.rebalance_timeout_seconds": "6",
        "kafka.request_timeout_seconds": "2.5",
        "kafka.delivery_timeout_seconds": "2",
    }
)
_SINKS = 2
MOST_MIB = {"ingest": 350, "sink": 500, "api": 400}
"""The most memory that a process may ever have had, by role."""


@dataclass
class Backends:
    """What a deployment runs on; each can be stopped, killed and frozen."""

    broker: KafkaBroker
    postgres: PostgresCluster
    bridge: ClickHouseBridge
    link: Link


@dataclass
class Deployment:
    """A running deployment."""

    backends: Backends
    cluster: Cluster
    runs: list[Traffic] = field(default_factory=list)

    @property
    def gateways(self) -> Sequence[ClusterProcess]:
        return self.cluster.gateways

    @property
    def sinks(self) -> Sequence[ClusterProcess]:
        """Those that are always there; not what a test added, and stopped again."""
        return self.cluster.sinks[:_SINKS]

    @property
    def api(self) -> ClusterProcess:
        return self.cluster.apis[0]

    @contextmanager
    def traffic(self, run: str, seed: int = 1) -> Iterator[Traffic]:
        """Clients that send while the block runs; at its end all they sent is acknowledged."""
        print(f"{run}: seed {seed}")
        traffic = Traffic(self._gateway_urls, self.cluster.key, run, seed)
        with self.api.client() as api:
            truth.entitle(api, traffic)
        with self.cluster.explaining():
            traffic.start()
            try:
                traffic.wait_acknowledged(10)
                yield traffic
            except BaseException:
                traffic.abandon()
                raise
            traffic.finish()
        print(f"{run}: {len(traffic.sent)} events, answers {dict(traffic.answers)}")

    def mend(self) -> None:
        """Start what a test that failed half-way has left dead."""
        for one in (*self.gateways, *self.sinks, self.api):
            if not one.is_running:
                respawn(one).wait_ready()

    def wrong(self, traffic: Traffic) -> list[str]:
        """What is wrong with the events of a run, once all of them should be counted."""
        self.settle()
        with self.api.client() as api:
            return truth.wrong(api, traffic)

    def settle(self) -> None:
        """Wait until the sinks say that they have stored everything."""
        self.cluster.wait_shared()

        def done() -> bool:
            running = [sink for sink in self.cluster.sinks if sink.is_running]
            found = [sink.readiness()[1].get("sink", {}) for sink in running]
            return all(one.get("lagEvents") == 0 for one in found)

        eventually(done, "the sinks have stored everything", 60.0)

    def require_right(self, traffic: Traffic) -> None:
        """Every acknowledged event counts once, all are ready, and none took too much memory."""
        with self.cluster.explaining():
            assert self.wrong(traffic) == []
            for one in self.cluster.processes:
                if one.is_running:
                    one.wait_ready(60.0)
                    assert peak_mib(one.pid) < MOST_MIB[one.role], one.name
            self.runs.append(traffic)

    def require_all_right(self) -> None:
        """What was right stays right, and so says who compares everything stored."""
        with self.api.client() as api, self.cluster.explaining():
            for traffic in self.runs:
                assert truth.wrong(api, traffic) == [], traffic.run
        for sink in self.cluster.sinks:
            if sink.is_running:
                assert sink.stop() == 0
        role = ("--set", "server.role=api")
        for command in (("rebuild-usage", "--verify"), ("doctor", "--store")):
            done = self.cluster.cli(*command, *role)
            print(done.stdout[-1000:])
            assert done.returncode == 0, done.stdout + done.stderr

    def _gateway_urls(self) -> list[str]:
        return [one.url for one in self.gateways]


@contextmanager
def deployed(
    backends: Backends, folder: Path, name: str, environment: dict[str, str] | None = None
) -> Iterator[Deployment]:
    """Two gateways, two sinks and an API server."""
    store = backends.bridge.options(name)
    database = backends.postgres.create_database(empty=True)
    cluster = Cluster(
        folder,
        backends.broker.bootstrap,
        store,
        database,
        gateways=2,
        sinks=_SINKS,
        settings=SETTINGS,
    )
    with cluster:
        deployment = Deployment(backends, cluster)
        with deployment.api.client() as api:
            truth.prepare(api)
        try:
            yield deployment
        finally:
            for one in cluster.processes:
                if not one.is_running:
                    reap(one)


def faulty(*arguments: str | Path) -> list[str]:
    """What runs the command line of a process that `tests.faults.launcher` tampers with."""
    return [sys.executable, "-m", "tests.faults.launcher", *map(str, arguments), "--"]


def honest() -> list[str]:
    """What runs it as it is."""
    return [sys.executable, "-m", "meterline"]


def respawn(process: ClusterProcess, program: list[str] | None = None) -> ClusterProcess:
    """Kill it if it lives, and start it anew, with another program maybe; does not wait."""
    if process.is_running:
        process.kill()
    else:
        reap(process)
    process.program = program or honest()
    return process.spawn()


def reap(process: ClusterProcess) -> None:
    """Forget a process that ended by itself."""
    if process._process is not None:
        process.wait()


def wait_not_ready(process: ClusterProcess, *checks: str, seconds: float = 30.0) -> None:
    """Wait until it says that it is not ready, and that exactly these checks failed."""
    seen: dict[str, object] = {}

    def says() -> bool:
        status, found = process.readiness()
        seen.update(found)
        failed = {name for name, one in found.items() if one["status"] != "ok"}
        return status == 503 and set(checks) <= failed

    try:
        eventually(says, f"{process.name} says that {checks} fail", seconds)
    except AssertionError as error:
        error.add_note(f"it said {seen}")
        raise


def wait_all_ready(deployment: Deployment, seconds: float = 60.0) -> None:
    """Wait until every process that runs is ready."""
    for one in deployment.cluster.processes:
        if one.is_running:
            one.wait_ready(seconds)


def wait_died(process: ClusterProcess, seconds: float = 60.0) -> None:
    """Wait until a process has ended by itself."""
    eventually(lambda: not process.is_running, f"{process.name} dies", seconds)
    reap(process)


def peak_mib(pid: int) -> float:
    """The most memory that a process ever had resident."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def memory(deployment: Deployment) -> dict[str, int]:
    """The peak of each process that runs."""
    return {
        one.name: round(peak_mib(one.pid)) for one in deployment.cluster.processes if one.is_running
    }
