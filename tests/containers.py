"""Runs tests against servers in containers: `python -m tests.containers [pytest arguments]`.

Starts ClickHouse, Apache Kafka and PostgreSQL through testcontainers, tells the tests where they
are, and runs pytest twice: all of it, and the event store's tests once more on the tables of a
cluster with shards and replicas (one server of it, which is its own Keeper). It needs Docker.

Tests that stop, freeze or kill a server start their own, of programs that are installed.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import docker  # type: ignore[import-untyped]
from docker.errors import DockerException  # type: ignore[import-untyped]
from testcontainers.community.clickhouse import ClickHouseContainer
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from tests.support.clickhouse import URL_VARIABLE
from tests.support.engines import CLUSTER_VARIABLE, STORE_VARIABLE
from tests.support.ports import free_port

CLICKHOUSE = os.environ.get("CLICKHOUSE_IMAGE", "clickhouse/clickhouse-server:26.8")
KAFKA = os.environ.get("KAFKA_IMAGE", "apache/kafka:4.3.1")
POSTGRES = os.environ.get("POSTGRES_IMAGE", "postgres:17")
CLUSTER = "meterline"
PASSWORD = "container"

# A cluster of one server that is its own Keeper: ON CLUSTER, replicated and Distributed tables.
CLUSTER_CONFIG = f"""<clickhouse>
  <keeper_server>
    <tcp_port>9181</tcp_port>
    <server_id>1</server_id>
    <log_storage_path>/var/lib/clickhouse/coordination/log</log_storage_path>
    <snapshot_storage_path>/var/lib/clickhouse/coordination/snapshots</snapshot_storage_path>
    <raft_configuration>
      <server><id>1</id><hostname>127.0.0.1</hostname><port>9234</port></server>
    </raft_configuration>
  </keeper_server>
  <zookeeper><node><host>127.0.0.1</host><port>9181</port></node></zookeeper>
  <distributed_ddl><path>/clickhouse/task_queue/ddl</path></distributed_ddl>
  <macros><shard>1</shard><replica>1</replica></macros>
  <remote_servers><{CLUSTER}><shard>
    <internal_replication>true</internal_replication>
    <replica><host>127.0.0.1</host><port>9000</port></replica>
  </shard></{CLUSTER}></remote_servers>
</clickhouse>
"""


def clickhouse(config: Path) -> ClickHouseContainer:
    """A ClickHouse server with a configuration file of ours."""
    container = ClickHouseContainer(CLICKHOUSE, username="meterline", password=PASSWORD)
    return container.with_volume_mapping(str(config), "/etc/clickhouse-server/config.d/cluster.xml")


def kafka(port: int) -> DockerContainer:
    """A Kafka broker that is told the port at which it is reached from outside."""
    listeners = {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
    }
    container = DockerContainer(KAFKA).with_bind_ports(9092, port)
    for name, value in listeners.items():
        container = container.with_env(name, value)
    return container.waiting_for(LogMessageWaitStrategy("Kafka Server started"))


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """All of them, and the variables that say where they are."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        config = folder / "cluster.xml"
        config.write_text(CLUSTER_CONFIG)
        store = stack.enter_context(clickhouse(config))
        port = free_port()
        stack.enter_context(kafka(port))
        database = stack.enter_context(
            PostgresContainer(
                POSTGRES, username="meterline", password=PASSWORD, dbname="meterline", driver=None
            )
        )
        host, store_port = store.get_container_host_ip(), store.get_exposed_port(8123)
        yield {
            URL_VARIABLE: f"http://meterline:{PASSWORD}@{host}:{store_port}",
            "METERLINE_TEST_KAFKA_SERVERS": f"127.0.0.1:{port}",
            "METERLINE_TEST_POSTGRES_URL": database.get_connection_url(),
        }


def runs(arguments: Sequence[str]) -> list[tuple[list[str], dict[str, str]]]:
    """The runs of pytest, each with its arguments and variables."""
    whole = {STORE_VARIABLE: "clickhouse", "METERLINE_TEST_DATABASE": "postgresql"}
    sharded = {STORE_VARIABLE: "sharded", CLUSTER_VARIABLE: CLUSTER}
    return [(list(arguments), whole), (["tests/aggregator"], sharded)]


def _pytest(arguments: Sequence[str], variables: Mapping[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, check=False).returncode


def main() -> int:
    try:
        docker.from_env().ping()
    except DockerException as error:
        print(f"error: these tests need Docker, which does not answer: {error}", file=sys.stderr)
        return 2
    with servers() as variables:
        codes = [_pytest(given, {**variables, **more}) for given, more in runs(sys.argv[1:])]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
