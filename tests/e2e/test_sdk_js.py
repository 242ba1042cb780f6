"""The unmodified npm package @openmeter/sdk, two generations of it, against a real server."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.parts import require_program
from tests.support.server import MeterlineServer, run_cli

_FOLDER = Path(__file__).parents[1] / "sdk-js"
_STEPS = 9


@pytest.fixture(scope="module")
def node() -> str:
    """The path of node, with the packages of the lock installed."""
    node, npm = require_program("node"), require_program("npm")
    lock = hashlib.sha256((_FOLDER / "package-lock.json").read_bytes()).hexdigest()
    stamp = _FOLDER / "node_modules" / ".installed"
    if not (stamp.is_file() and stamp.read_text() == lock):
        command = [npm, "ci", "--omit=peer", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=_FOLDER, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        stamp.write_text(lock)
    return node


@pytest.fixture(scope="module")
def sdk_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeterlineServer]:
    """A server of its own, because the SDKs invalidate every portal token."""
    with MeterlineServer(tmp_path_factory.mktemp("sdk") / "data") as running:
        yield running


@pytest.mark.parametrize("version", ["185", "232"])
def test_every_call_of_the_sdk(node: str, sdk_server: MeterlineServer, version: str) -> None:
    _run(node, version, sdk_server.url)


@pytest.mark.parametrize("version", ["185", "232"])
def test_the_sdk_with_an_api_key(node: str, tmp_path: Path, version: str) -> None:
    data = tmp_path / "data"
    made = run_cli("keys", "create", "--scope", "admin", "--data-dir", data, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]
    with MeterlineServer(data) as running:
        with running.client() as client:
            assert client.get("/api/v1/meters").status_code == 401
        _run(node, version, running.url, key)


def _run(node: str, version: str, *arguments: str) -> None:
    done = subprocess.run(
        [node, "run.mjs", version, *arguments],
        cwd=_FOLDER,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == _STEPS, done.stdout
