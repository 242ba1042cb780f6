"""A real server for a benchmark, on a free port and a temporary folder."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: its address, its process, and how long it took to be ready."""

    url: str
    pid: int
    seconds_to_ready: float

    def client(self) -> httpx.Client:
        """A client of it."""
        return httpx.Client(base_url=self.url, timeout=300.0)

    def resident_mib(self) -> float:
        """Its resident memory now, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    def peak_mib(self) -> float:
        """The most resident memory it has had, in MiB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024


@contextmanager
def serving(folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """`meterline serve` on a folder, with settings from the environment; stopped at the end."""
    command = [sys.executable, "-m", "meterline", "serve", "--host", "127.0.0.1", "--port", "0"]
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--data-dir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})},
    )
    assert process.stdout is not None
    try:
        url = _address(process)
        with httpx.Client(base_url=url, timeout=60.0) as client:
            while client.get("/readyz").status_code != 200:
                time.sleep(0.01)
        yield Server(url, process.pid, time.perf_counter() - started)
    finally:
        process.terminate()
        process.stdout.close()
        process.wait(60)


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if '"url"' in line:
            return str(json.loads(line)["url"])
    raise RuntimeError("the server did not start")


def folder_bytes(folder: Path) -> int:
    """The size of all files below a folder; some may come and go meanwhile."""
    size = 0
    # os.walk passes over folders that are gone by the time it comes to them; rglob does not.
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                size += Path(parent, name).lstat().st_size
    return size
