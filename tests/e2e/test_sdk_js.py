"""The unmodified npm package @openmeter/sdk, two generations of it, against a real server."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import MeterlineServer, run_cli

_FOLDER = Path(__file__).parents[1] / "sdk-js"
_CALLS, _FLOWS, _SNIPPETS = 9, 7, 28


@pytest.fixture(scope="module")
def sdk_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeterlineServer]:
    """A server of its own, because the SDKs invalidate every portal token."""
    with MeterlineServer(tmp_path_factory.mktemp("sdk") / "data") as running:
        yield running


@pytest.mark.parametrize("version", ["185", "232"])
def test_every_call_of_the_sdk(node: str, sdk_server: MeterlineServer, version: str) -> None:
    assert _run(node, "run.mjs", version, sdk_server.url) == _CALLS


@pytest.mark.parametrize("version", ["185", "232"])
def test_entitlements_with_the_sdk(node: str, sdk_server: MeterlineServer, version: str) -> None:
    assert _run(node, "entitlements.mjs", version, sdk_server.url) == _FLOWS


def test_every_snippet_of_the_readme(node: str, tmp_path: Path) -> None:
    with MeterlineServer(tmp_path / "data") as running:
        assert _run(node, "readme.mjs", running.url) == _SNIPPETS


@pytest.mark.parametrize("version", ["185", "232"])
def test_the_sdk_with_an_api_key(node: str, tmp_path: Path, version: str) -> None:
    data = tmp_path / "data"
    made = run_cli("keys", "create", "--scope", "admin", "--data-dir", data, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]
    with MeterlineServer(data) as running:
        with running.client() as client:
            assert client.get("/api/v1/meters").status_code == 401
        assert _run(node, "run.mjs", version, running.url, key) == _CALLS
        assert _run(node, "entitlements.mjs", version, running.url, key) == _FLOWS


def _run(node: str, *arguments: str) -> int:
    """Run a script; answers how many steps it went through."""
    done = subprocess.run(
        [node, *arguments], cwd=_FOLDER, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return len(done.stdout.splitlines())
