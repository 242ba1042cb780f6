"""Meterline in processes of their own: gateways, sinks and API servers over shared backends.

    with Cluster(folder, broker.bootstrap, bridge.options("mine"), database_url) as one:
        with one.gateways[0].client() as events, one.apis[0].client() as api:
            ...

It migrates with the command line, starts every process through it, with settings in the
environment, and waits until all are ready. Each process keeps its port, so that it can be killed
and started again under clients that go on. Clients send the deployment's first key.

For fault tests: `one.sinks[1].kill()`, `.freeze()`, `.thaw()`, `.stop()`, `.restart()`,
`.spawn()` (without waiting), `.wait_ready()`, `.readiness()`, `one.add("sink")`. Begin a test with
`with one.explaining():` and its failure shows the end of each process's log.
"""

import os
import secrets
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from aggregator.stores.clickhouse import ClickHouseOptions
from tests.support.ports import free_port
from tests.support.server import MeterlineServer, eventually, run_cli

_START_SECONDS = 90.0


class ClusterProcess(MeterlineServer):
    """One process of a deployment, at a port that it keeps."""

    def __init__(
        self, role: str, name: str, folder: Path, environment: Mapping[str, str], key: str
    ) -> None:
        self.role = role
        self.name = name
        self.port = free_port()
        self._key = key
        arguments = ["--role", role, "--port", str(self.port)]
        super().__init__(folder / name, arguments=arguments, environment=environment)
        self.url = f"http://127.0.0.1:{self.port}"

    def spawn(self) -> Self:
        """Start it, and do not wait."""
        self._spawn()
        return self

    def wait_ready(self, seconds: float = _START_SECONDS) -> Self:
        """Wait until it says that it can do its work."""
        with self.client() as client:
            eventually(lambda: self._is_ready(client), f"{self.name} is ready", seconds)
        return self

    @property
    def is_running(self) -> bool:
        """Whether the process lives, frozen or not."""
        return self._is_running()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def client(self, **options: Any) -> httpx.Client:
        """A client with the deployment's key."""
        headers = {"authorization": f"Bearer {self._key}", **options.pop("headers", {})}
        return super().client(headers=headers, **options)

    def async_client(self, **options: Any) -> httpx.AsyncClient:
        """The same for a test on the loop."""
        headers = {"authorization": f"Bearer {self._key}", **options.pop("headers", {})}
        return httpx.AsyncClient(base_url=self.url, timeout=60.0, headers=headers, **options)

    def readiness(self) -> tuple[int, dict[str, Any]]:
        """Status and checks of `/readyz`; 0 when it does not answer."""
        try:
            answer = httpx.get(f"{self.url}/readyz", timeout=10.0)
        except httpx.TransportError:
            return 0, {}
        checks: dict[str, Any] = answer.json()["checks"]
        return answer.status_code, checks

    def metric(self, name: str) -> dict[str, float]:
        """The samples of a metric, by their labels as they are written; none while it is away."""
        try:
            text = httpx.get(f"{self.url}/metrics", timeout=10.0).text
        except httpx.TransportError:
            return {}
        found = {}
        for line in text.splitlines():
            if line.startswith((f"{name}{{", f"{name} ")):
                sample, _, value = line.rpartition(" ")
                found[sample.removeprefix(name)] = float(value)
        return found


class Cluster:
    """A deployment. A context manager: it runs until the block ends."""

    def __init__(
        self,
        folder: Path,
        bootstrap: str,
        store: ClickHouseOptions,
        database_url: str,
        *,
        gateways: int = 1,
        sinks: int = 2,
        apis: int = 1,
        partitions: int = 4,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are by name, as in `{"sink.linger_seconds": "0.05"}`."""
        self.folder = folder
        self.key = f"ml_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
        topic = f"cluster.{secrets.token_hex(6)}"
        given = {
            "eventlog.kind": "kafka",
            "kafka.bootstrap": bootstrap,
            "kafka.topic": topic,
            "kafka.group": topic,
            "kafka.partitions": str(partitions),
            "kafka.replication": "1",
            "kafka.min_insync_replicas": "1",
            "store.kind": "clickhouse",
            "clickhouse.url": store.url,
            "clickhouse.database": store.database,
            "clickhouse.user": store.user,
            "clickhouse.password": store.password,
            "database.url": database_url,
            "database.writers": "4",
            "database.readers": "2",
            "database.hot": "1",
            "auth.first_key": self.key,
            "server.log_format": "json",
            **(settings or {}),
        }
        self.environment = {
            f"METERLINE_{name.replace('.', '__').upper()}": value for name, value in given.items()
        }
        self.topic = topic
        self.partitions = partitions
        self.processes: list[ClusterProcess] = []
        self._initial = {"ingest": gateways, "sink": sinks, "api": apis}

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            done = self.cli("migrate")
            assert done.returncode == 0, done.stdout + done.stderr
            for role, count in self._initial.items():
                for _ in range(count):
                    self.add(role).spawn()
            with self.explaining():
                for process in self.processes:
                    process.wait_ready()
                self.wait_shared()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill what runs."""
        for process in self.processes:
            if process.is_running:
                process.kill()

    def add(self, role: str) -> ClusterProcess:
        """One more process of a role, not started."""
        number = sum(one.role == role for one in self.processes) + 1
        one = ClusterProcess(role, f"{role}-{number}", self.folder, self.environment, self.key)
        self.processes.append(one)
        return one

    def of(self, role: str) -> Sequence[ClusterProcess]:
        """The processes of a role."""
        return [one for one in self.processes if one.role == role]

    @property
    def gateways(self) -> Sequence[ClusterProcess]:
        """Those that take events."""
        return self.of("ingest")

    @property
    def sinks(self) -> Sequence[ClusterProcess]:
        """Those that store them."""
        return self.of("sink")

    @property
    def apis(self) -> Sequence[ClusterProcess]:
        """Those that answer."""
        return self.of("api")

    def cli(self, *arguments: object) -> Any:
        """Run a command with the deployment's settings."""
        return run_cli(*arguments, environment=self.environment, cwd=self.folder)

    def partitions_of_sinks(self) -> list[set[str]]:
        """Which partitions each sink that answers has, as its metrics say."""
        return [
            set(sink.metric("meterline_sink_lag_events")) for sink in self.sinks if sink.is_running
        ]

    def wait_shared(self, seconds: float = _START_SECONDS) -> None:
        """Wait until the sinks that run have all partitions, each some and none the same one."""

        def shared() -> bool:
            parts = self.partitions_of_sinks()
            return all(parts) and sum(map(len, parts)) == len(set().union(*parts)) == (
                self.partitions if parts else 0
            )

        eventually(shared, "the sinks share the partitions", seconds)

    @contextmanager
    def explaining(self, lines: int = 25) -> Iterator[None]:
        """Shows the end of every log when the block fails."""
        try:
            yield
        except BaseException as error:
            for one in self.processes:
                error.add_note(f"--- {one.name}:\n{one.tail(lines)}")
            raise
