"""Fixtures that every test may use."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.support.kafka import kafka_broker as kafka_broker
from tests.support.server import MeterlineServer

pytest_plugins = ["tests.support.postgres", "tests.support.database"]

# How long one example takes says more of the machine than of the code.
settings.register_profile("meterline", deadline=None)
settings.load_profile("meterline")

StartServer = Callable[..., MeterlineServer]
_ROOT = Path(__file__).parent
_SLOWEST = {name: rank for rank, name in enumerate(("faults", "e2e", "server", "aggregator"))}


class Shares(LoadScopeScheduling):  # type: ignore[misc]
    """What one process runs: a file at a time, and all faults, which share a deployment."""

    def _split_scope(self, nodeid: str) -> str:
        file, _, _ = nodeid.partition("::")
        return "faults" if "faults" in Path(file).parts else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares:
    return Shares(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes long begins first, so that the processes end at the same time."""
    items.sort(key=lambda item: _SLOWEST.get(_folder(item), len(_SLOWEST)))


def _folder(item: pytest.Item) -> str:
    return item.path.relative_to(_ROOT).parts[0]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeterlineServer]:
    """A server without keys that tests share: each uses event types and slugs of its own."""
    with MeterlineServer(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers that only this test uses; arguments as for `MeterlineServer`."""
    with ExitStack() as stack:

        def start(name: str = "data", **options: object) -> MeterlineServer:
            running = MeterlineServer(tmp_path / name, **options)  # type: ignore[arg-type]
            return stack.enter_context(running)

        yield start
