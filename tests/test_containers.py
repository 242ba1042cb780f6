"""What can be said of `tests.containers` without Docker."""

from pathlib import Path
from xml.etree import ElementTree

import yaml

from tests import containers


def test_images_are_those_of_the_compose_file() -> None:
    compose = yaml.safe_load((Path(__file__).parents[1] / "docker-compose.yml").read_text())
    images = {service.get("image", "") for service in compose["services"].values()}
    assert {containers.CLICKHOUSE, containers.KAFKA, containers.POSTGRES} <= images


def test_the_cluster_is_one_server_with_its_own_keeper() -> None:
    root = ElementTree.fromstring(containers.CLUSTER_CONFIG)
    keeper = root.findtext("keeper_server/tcp_port")
    assert keeper == root.findtext("zookeeper/node/port")
    (cluster,) = root.iterfind("remote_servers/*")
    assert cluster.tag == containers.CLUSTER


def test_the_second_run_is_of_the_store_alone() -> None:
    (first, whole), (second, sharded) = containers.runs(["-q"])
    assert (first, second) == (["-q"], ["tests/aggregator"])
    assert whole["METERLINE_TEST_STORE"] == "clickhouse"
    assert sharded["METERLINE_TEST_CLUSTER"] == containers.CLUSTER
