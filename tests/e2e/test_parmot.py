"""PyPI's parmot 0.1.1, unmodified, with the providers' own packages, against a real server."""

from pathlib import Path

import pytest

from tests.support.environments import python_with, succeed
from tests.support.server import MeterlineServer

_FOLDER = Path(__file__).parents[1] / "sdk-py" / "parmot"
_FLOWS = 5


@pytest.fixture(scope="module")
def parmot_python() -> str:
    """A Python with the packages of the lock, and none of ours."""
    return python_with(_FOLDER)


def test_the_flows(parmot_python: str, server: MeterlineServer) -> None:
    told = succeed(_FOLDER, parmot_python, "flows.py", server.url, "any")
    assert len(told.splitlines()) == _FLOWS
