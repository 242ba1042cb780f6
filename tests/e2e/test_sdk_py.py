"""PyPI's openmeter 1.0.0b188, sync and async, unmodified, against a real server."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import MeterlineServer, run_cli

_FOLDER = Path(__file__).parents[1] / "sdk-py"
_FLOWS = 2


@pytest.fixture(scope="module")
def sdk_python() -> str:
    """A Python with the packages of the lock, and none of ours."""
    lock = _FOLDER / "requirements.txt"
    folder = _FOLDER / ".venv"
    stamp, python = folder / ".installed", str(folder / "bin" / "python")
    wanted = hashlib.sha256(lock.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.is_file() and stamp.read_text() == wanted):
        _succeed(sys.executable, "-m", "venv", "--clear", str(folder))
        install = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _succeed(python, *install, "--require-hashes", "-r", str(lock))
        stamp.write_text(wanted)
    return python


@pytest.mark.parametrize("client", ["sync", "aio"])
def test_the_flows(sdk_python: str, server: MeterlineServer, client: str) -> None:
    told = _succeed(sdk_python, "flows.py", client, server.url)
    assert len(told.splitlines()) == _FLOWS


def test_the_flows_with_an_api_key(sdk_python: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    made = run_cli("keys", "create", "--scope", "admin", "--data-dir", data, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]
    with MeterlineServer(data) as running:
        told = _succeed(sdk_python, "flows.py", "sync", running.url, key)
        assert len(told.splitlines()) == _FLOWS


def _succeed(*command: str) -> str:
    done = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
