"""What several end-to-end tests need."""

from pathlib import Path

import pytest

from tests.support.environments import node_with


@pytest.fixture(scope="session")
def node() -> str:
    """The path of node, with the packages of the lock installed."""
    return node_with(Path(__file__).parents[1] / "sdk-js")
