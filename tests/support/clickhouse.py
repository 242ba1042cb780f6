"""A ClickHouse server for tests: the HTTP bridge over the embedded engine, or a real one.

    with ClickHouseBridge(tmp_path / "clickhouse") as bridge:
        engine = ClickHouseEngine(bridge.options("some_database"))

A bridge is a process of its own, serves any number of clients, and keeps its data in its folder:
`kill()` and `start()` are a restart, after which tables of the engine `Memory` are empty, on the
same address. `freeze()` and `thaw()` stop and continue it. `inject()` makes statements fail; see
`tests.support.clickhouse_bridge` for the kinds of faults.

`shared_options(database)` is for tests that only need a server: one bridge serves all of them, or
the server that METERLINE_TEST_CLICKHOUSE_URL names (`http://user:password@host:8123`).
"""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import httpx

from aggregator.stores.clickhouse import ClickHouseOptions
from aggregator.stores.layout import Layout
from tests.support.server import cli_environment, eventually

URL_VARIABLE = "METERLINE_TEST_CLICKHOUSE_URL"
_ROOT = Path(__file__).resolve().parents[2]


class ClickHouseBridge:
    """One bridge and its folder."""

    def __init__(
        self,
        folder: Path,
        *,
        user: str = "default",
        password: str = "secret",
        cluster: str | None = None,
    ) -> None:
        self.folder = folder
        self.cluster = cluster
        self.user = user
        self.password = password
        self.url = ""
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def options(self, database: str = "default", **more: Any) -> ClickHouseOptions:
        """What an engine needs to use it."""
        return ClickHouseOptions(
            url=self.url,
            database=database,
            user=self.user,
            password=self.password,
            **{"layout": self.layout, **more},
        )

    @property
    def layout(self) -> Layout:
        """How its tables are laid out: in a cluster, as if there were several shards."""
        return Layout(cluster=self.cluster, sharded=self.cluster is not None)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it, at the address it had before if there was one, and wait until it serves."""
        assert self._process is None
        command = [sys.executable, "-m", "tests.support.clickhouse_bridge", str(self.folder)]
        command += ["--user", self.user, "--password", self.password]
        command += ["--cluster", self.cluster or ""]
        command += ["--port", str(urlsplit(self.url).port or 0)]
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env=cli_environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.kill()
            raise AssertionError("the ClickHouse bridge did not start")
        self.url = json.loads(line)["url"]
        return self

    def stop(self) -> None:
        """Let it close its store, and wait until it has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._forget()

    def kill(self) -> None:
        """End it at once, as kill -9 does; nothing if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._forget()

    def _forget(self) -> None:
        assert self._process is not None
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def freeze(self) -> None:
        """Stop it without ending it; connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)
        # The kernel stops one thread after another, and each may still answer until then.
        eventually(lambda: set(self._states()) <= {"T", "t"}, "all threads stopped")

    def _states(self) -> list[str]:
        tasks = Path(f"/proc/{self.pid}/task").glob("*/stat")
        return [one.read_text().rpartition(")")[2].split()[0] for one in tasks]

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def inject(self, *faults: dict[str, Any]) -> None:
        """Set the faults that are to come, in place of those before: none heals it."""
        httpx.post(f"{self.url}/_bridge/faults", json=list(faults)).raise_for_status()

    def statements(self) -> list[dict[str, Any]]:
        """The last statements that came in: `sql` (its beginning), `settings`, `query_id`."""
        told: list[dict[str, Any]] = httpx.get(f"{self.url}/_bridge/statements").json()
        return told


@cache
def shared_bridge(cluster: str | None = None) -> ClickHouseBridge:
    """A bridge for all tests of this run; they use databases of their own, and set no faults."""
    folder = Path(tempfile.mkdtemp(prefix="meterline-clickhouse-"))
    bridge = ClickHouseBridge(folder / "store", cluster=cluster).start()

    def end() -> None:
        bridge.kill()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return bridge


def real_server() -> str | None:
    """The address of a real server to test against, if there is one."""
    return os.environ.get(URL_VARIABLE)


def shared_options(database: str, **more: Any) -> ClickHouseOptions:
    """A database of the server that tests share."""
    url = real_server()
    if url is None:
        layout = more.get("layout", Layout())
        return shared_bridge(layout.cluster).options(database, **{"layout": layout, **more})
    parts = urlsplit(url)
    return ClickHouseOptions(
        url=f"{parts.scheme}://{parts.hostname}:{parts.port or 8123}",
        database=database,
        user=unquote(parts.username or "default"),
        password=unquote(parts.password or ""),
        **more,
    )
