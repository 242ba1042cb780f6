"""Fixtures that every test may use."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.kafka import kafka_broker as kafka_broker
from tests.support.server import MeterlineServer

pytest_plugins = ["tests.support.postgres", "tests.support.database"]

# How long one example takes says more of the machine than of the code.
settings.register_profile("meterline", deadline=None)
settings.load_profile("meterline")

StartServer = Callable[..., MeterlineServer]
_ROOT = Path(__file__).parent
_SLOWEST = {name: rank for rank, name in enumerate(("faults", "e2e", "server", "aggregator"))}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what is to run in one process: a file, and all faults, which share a deployment.

    What takes long begins first, so that the processes end at the same time.
    """
    items.sort(key=lambda item: _SLOWEST.get(_place(item).parts[0], len(_SLOWEST)))
    for item in items:
        place = _place(item)
        group = place.parts[0] if place.parts[0] == "faults" else place.as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


def _place(item: pytest.Item) -> Path:
    return item.path.relative_to(_ROOT)


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
