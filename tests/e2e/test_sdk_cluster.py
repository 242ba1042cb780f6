"""Hard limits of plans, asked of two servers at once: over a broker, and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from meterline_sdk import Meterline, RetryPolicy
from tests.sdk.providers import serving
from tests.sdk.racing import CALL, race
from tests.support.clickhouse import shared_options
from tests.support.cluster import Cluster
from tests.support.kafka import KafkaBroker
from tests.support.postgres import PostgresCluster
from tests.support.server import eventually


@pytest.fixture
def cluster(
    tmp_path: Path, kafka_broker: KafkaBroker, postgres: PostgresCluster
) -> Iterator[Cluster]:
    store = shared_options("sdk")
    database = postgres.create_database(empty=True)
    with Cluster(
        tmp_path / "cluster", kafka_broker.bootstrap, store, database, gateways=0, sinks=1, apis=2
    ) as running:
        yield running


def test_sixty_four_clients_of_two_servers_never_pass_a_hard_limit(cluster: Cluster) -> None:
    urls = [one.url for one in cluster.apis]
    patient = RetryPolicy(max_retries=10)
    with (
        cluster.explaining(),
        serving() as stub,
        Meterline(urls[0], cluster.key, timeout_seconds=60, retries=patient) as meterline,
    ):
        meterline.plans.create("hard", monthly_token_limit=20 * CALL + 7)
        meterline.plans.assign("two", "hard")
        assert race(urls, stub, "two", 64, key=cluster.key, reserve=True) == 20
        eventually(
            lambda: meterline.plans.summary("two").current_month.tokens == 20 * CALL,
            "all is counted, and the overshoot is 0",
            60,
        )
        eventually(
            lambda: meterline.entitlements.value("two", "meterline_tokens").held == 0,
            "the holds are given back",
            60,
        )
        assert meterline.check("two", tokens=7).allowed
        assert not meterline.check("two", tokens=8).allowed
