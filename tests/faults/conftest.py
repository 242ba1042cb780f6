"""One deployment for all faults that it survives, with backends of its own."""

from collections.abc import Iterator

import pytest

from tests.faults.deployment import Backends, Deployment, deployed
from tests.faults.network import opened_link
from tests.support.clickhouse import ClickHouseBridge
from tests.support.kafka import KafkaBroker, require_class_path
from tests.support.postgres import PostgresCluster, require_binaries


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    folder = tmp_path_factory.mktemp("faults")
    with (
        opened_link() as link,
        KafkaBroker(require_class_path(), settings=link.listeners) as broker,
        PostgresCluster(require_binaries(), durable=True) as postgres,
        ClickHouseBridge(folder / "clickhouse") as bridge,
    ):
        yield Backends(broker, postgres, bridge, link)


@pytest.fixture(scope="session")
def surviving(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(backends, tmp_path_factory.mktemp("deployment"), "faults") as running:
        yield running


@pytest.fixture
def deployment(surviving: Deployment) -> Deployment:
    """The one for faults that it survives; whatever an earlier test left dead runs again."""
    surviving.mend()
    return surviving


@pytest.fixture(scope="session")
def corrupted(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(backends, tmp_path_factory.mktemp("broken"), "broken") as running:
        yield running


@pytest.fixture
def broken(corrupted: Deployment) -> Deployment:
    """A deployment for controls: what it stores is wrong, as it shall be."""
    corrupted.mend()
    return corrupted
