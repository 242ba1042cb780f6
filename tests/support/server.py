"""A real `meterline serve` in a process of its own, on a free port of the loopback interface."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

T = TypeVar("T")
_ROOT = Path(__file__).resolve().parents[2]
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


def eventually(look: Callable[[], T | None], what: str, seconds: float = 20.0) -> T:
    """The first answer of `look` that is neither None nor False; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        answer = look()
        if answer is not None and answer is not False:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def cli_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a child that runs this checkout, without settings of the caller's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METERLINE_")}
    return {**kept, "PYTHONPATH": str(_ROOT), "PYTHONUNBUFFERED": "1", **extra}


class MeterlineServer:
    """One server and its data folder; it can be stopped, killed and started again."""

    def __init__(
        self,
        data_dir: Path,
        *,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.arguments = list(arguments)
        self.environment = dict(environment or {})
        self.program = [sys.executable, "-m", "meterline"]
        """What runs the command line: fault tests put something before it."""
        self.url = ""
        self.log: list[str] = []
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._listening = threading.Event()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Self:
        """Start it and wait until it is ready."""
        self._spawn()
        if not self._listening.wait(_START_SECONDS) or not self._is_running():
            self.kill()
            raise AssertionError("the server did not start:\n" + self.tail())
        try:
            with self.client() as client:
                eventually(lambda: self._is_ready(client), "ready", _START_SECONDS)
        except AssertionError:
            self.kill()
            raise
        return self

    def start_and_kill_after_lines(self, lines: int) -> None:
        """Start it, and kill it as soon as it has written so many lines of log."""
        before = len(self.log)
        self._spawn()
        eventually(
            lambda: len(self.log) >= before + lines or not self._is_running(), "lines of log"
        )
        self.kill()

    def _is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _spawn(self) -> None:
        assert self._process is None
        self._listening.clear()
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        command = [*self.program, "serve", "--host", "127.0.0.1"]
        command += ["--port", "0", "--data-dir", str(self.data_dir), *self.arguments]
        self._process = subprocess.Popen(
            command,
            cwd=self.data_dir.parent,
            env=cli_environment(self.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), daemon=True)
        self._reader.start()

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.log.append(line.rstrip("\n"))
            if not self._listening.is_set():
                self._look_for_url(line)
        self._listening.set()  # it ended: whoever waits must look

    def _look_for_url(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if isinstance(entry, dict) and "url" in entry:
            self.url = entry["url"]
            self._listening.set()

    def _is_ready(self, client: httpx.Client) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, "the server ended:\n" + self.tail()
        try:
            return client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """End it at once, as kill -9 does."""
        assert self._process is not None
        self._process.kill()
        self._wait()

    def terminate(self) -> None:
        """Ask it to stop; returns at once."""
        assert self._process is not None
        self._process.terminate()

    def stop(self) -> int:
        """Ask it to stop and wait; answers its exit code."""
        self.terminate()
        return self._wait()

    def wait(self) -> int:
        """Wait until it has ended."""
        return self._wait()

    def _wait(self) -> int:
        assert self._process is not None
        assert self._reader is not None
        try:
            code = self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError("the server did not stop:\n" + self.tail()) from None
        finally:
            self._reader.join()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None
        return code

    def restart(self) -> Self:
        """Start again on the same data, after a stop or a kill."""
        return self.start()

    def tail(self, lines: int = 40) -> str:
        """The end of the log."""
        return "\n".join(self.log[-lines:])

    def client(self, **options: Any) -> httpx.Client:
        """A client of this server."""
        return httpx.Client(base_url=self.url, timeout=60.0, **options)


def run_cli(
    *arguments: object, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `meterline` with these arguments and wait for it."""
    return subprocess.run(
        [sys.executable, "-m", "meterline", *map(str, arguments)],
        env=cli_environment(environment or {}),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


@contextmanager
def running_cli(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run `meterline` with these arguments beside the test; it does not outlive the block."""
    process = subprocess.Popen(
        [sys.executable, "-m", "meterline", *map(str, arguments)],
        env=cli_environment({}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
