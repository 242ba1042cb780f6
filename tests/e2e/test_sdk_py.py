"""PyPI's openmeter 1.0.0b188, sync and async, unmodified, against a real server."""

from pathlib import Path

import pytest

from tests.support.environments import python_with, succeed
from tests.support.server import MeterlineServer, run_cli

_FOLDER = Path(__file__).parents[1] / "sdk-py"
_FLOWS = 2


@pytest.fixture(scope="module")
def sdk_python() -> str:
    """A Python with the packages of the lock, and none of ours."""
    return python_with(_FOLDER)


@pytest.mark.parametrize("client", ["sync", "aio"])
def test_the_flows(sdk_python: str, server: MeterlineServer, client: str) -> None:
    told = succeed(_FOLDER, sdk_python, "flows.py", client, server.url)
    assert len(told.splitlines()) == _FLOWS


def test_the_flows_with_an_api_key(sdk_python: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    made = run_cli("keys", "create", "--scope", "admin", "--data-dir", data, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1]
    with MeterlineServer(data) as running:
        told = succeed(_FOLDER, sdk_python, "flows.py", "sync", running.url, key)
        assert len(told.splitlines()) == _FLOWS
