"""A deployment: gateways, sinks and an API server in processes of their own, over a real broker."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from decimal import Decimal
from typing import Any

import httpx
import pytest

from meterline.eventlog.kafka_options import KafkaOptions
from tests.support.clickhouse import shared_options
from tests.support.cluster import Cluster, ClusterProcess
from tests.support.kafka import KafkaBroker
from tests.support.meters import event, make_meter, rows, send, wait_total
from tests.support.postgres import PostgresCluster
from tests.support.server import eventually

_BATCHES = 20
_BATCH = 50


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, kafka_broker: KafkaBroker, postgres: PostgresCluster
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    store = shared_options("roles")
    database = postgres.create_database(empty=True)
    with Cluster(folder, kafka_broker.bootstrap, store, database, gateways=2) as running:
        yield running
        # Whatever the tests did, all end as they should.
        for one in running.processes:
            assert not one.is_running or one.stop() == 0, one.tail()
            assert any('"event": "stopped"' in line for line in one.log), one.tail()
            assert "Traceback" not in "\n".join(one.log), one.tail()


@pytest.fixture(scope="module")
def gateways(cluster: Cluster) -> Iterator[list[httpx.Client]]:
    with ExitStack() as stack:
        yield [stack.enter_context(one.client()) for one in cluster.gateways]


@pytest.fixture(scope="module")
def api(cluster: Cluster) -> Iterator[httpx.Client]:
    with cluster.apis[0].client() as client:
        yield client


def buy(api: httpx.Client) -> httpx.Response | None:
    """Buy credits. The first use of a namespace makes their meter, which may be a 503 meanwhile."""
    answer = api.post(
        "/api/v1/subjects/buyer/credits",
        json={"amount": 100},
        headers={"idempotency-key": "buy"},
    )
    return None if answer.status_code == 503 else answer


def status(process: ClusterProcess, method: str, path: str) -> int:
    with process.client() as client:
        return client.request(method, path).status_code


def test_every_event_counts_once_whichever_gateway_took_it(
    cluster: Cluster, gateways: list[httpx.Client], api: httpx.Client
) -> None:
    with cluster.explaining():
        # One meter before the events, one that finds them stored.
        make_meter(api, "r_before", "SUM", eventType="r", valueProperty="$.n")
        batches = [
            [event(f"{batch}-{n}", type="r", data={"n": n}) for n in range(_BATCH)]
            for batch in range(_BATCHES)
        ]

        def send_twice(numbered: tuple[int, list[dict[str, Any]]]) -> None:
            # To both gateways: what is sent again must find its first one, in another process.
            number, batch = numbered
            for step in (0, 1):
                send(gateways[(number + step) % 2], batch)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(send_twice, enumerate(batches)))
        expected = _BATCHES * sum(range(_BATCH))
        wait_total(api, "r_before", expected)
        make_meter(api, "r_after", "COUNT", eventType="r")
        wait_total(api, "r_after", _BATCHES * _BATCH)
        stored = [sink.metric("meterline_events_stored_total")[""] for sink in cluster.sinks]
        assert sum(stored) >= _BATCHES * _BATCH
        # Both had a part in it.
        assert all(stored), stored
        listed = api.get("/api/v1/events", params={"type": "r", "limit": 3}).json()
        assert len(listed) == 3
        assert all("validationError" not in one for one in listed)


def test_the_sinks_share_the_partitions(cluster: Cluster) -> None:
    first, second = cluster.partitions_of_sinks()
    assert first
    assert second
    assert not first & second
    assert len(first | second) == 4


def test_a_role_shows_its_own_and_tells_its_own_truth(cluster: Cluster) -> None:
    gateway, sink, api = cluster.gateways[0], cluster.sinks[0], cluster.apis[0]
    checks = {one.role: set(one.readiness()[1]) for one in (gateway, sink, api)}
    assert checks == {
        "ingest": {"log", "database"},
        "sink": {"log", "database", "store", "sink"},
        "api": {"log", "database", "store", "freshness"},
    }
    asked = ("GET", "/api/v1/meters"), ("POST", "/api/v1/events")
    assert [status(gateway, *one) for one in asked] == [404, 415]
    assert [status(sink, *one) for one in asked] == [404, 404]
    assert [status(api, *one) for one in asked] == [200, 415]
    for one in cluster.processes:
        assert status(one, "GET", "/healthz") == 200
        assert one.metric("meterline_info")
    assert gateway.metric("meterline_kafka_waiting_bytes") == {"": 0}
    assert set(api.metric("meterline_freshness_lag_seconds")) == {""}
    assert not api.metric("meterline_sink_lag_events")
    # Left out, a check is not asked: an API server that is behind can go on answering.
    left_out = httpx.get(f"{api.url}/readyz", params={"exclude": "freshness"}).json()
    assert "freshness" not in left_out["checks"]


def test_a_key_is_asked_for_everywhere_but_where_nothing_is_to_be_seen(cluster: Cluster) -> None:
    for process, path in ((cluster.gateways[0], "/api/v1/events"), (cluster.apis[0], "/api/v1/x")):
        assert httpx.post(f"{process.url}{path}").status_code in (401, 404)
    assert httpx.post(f"{cluster.gateways[0].url}/api/v1/events").status_code == 401
    assert httpx.get(f"{cluster.apis[0].url}/api/v1/meters").status_code == 401


def test_a_balance_is_the_usage_that_the_sinks_stored(
    cluster: Cluster, gateways: list[httpx.Client], api: httpx.Client
) -> None:
    with cluster.explaining():
        make_meter(api, "r_tokens", "SUM", eventType="r-tokens", valueProperty="$.n")
        feature = {"key": "r_tokens", "name": "Tokens", "meterSlug": "r_tokens"}
        assert api.post("/api/v1/features", json=feature).status_code == 201
        entitlement = {
            "type": "metered",
            "featureKey": "r_tokens",
            "issueAfterReset": 1000,
            "usagePeriod": {"interval": "MONTH"},
        }
        path = "/api/v1/subjects/acme/entitlements"
        made = api.post(path, json=entitlement)
        assert made.status_code == 201, made.text
        for number in range(12):
            one = event(f"{number}", type="r-tokens", subject="acme", data={"n": "0.25"})
            send(gateways[number % 2], [one])
            asked = api.get(f"{path}/r_tokens/value", params={"wait": "true"})
            assert asked.status_code == 200, asked.text
            value = asked.json(parse_float=Decimal)
            # A caller that waits sees its own event, whichever sink has it.
            assert value["usage"] == (number + 1) * Decimal("0.25")
        assert value["balance"] == Decimal("997")
        assert value["hasAccess"] is True
        token = api.post("/api/v1/portal/tokens", json={"subject": "acme"}).json()["token"]
        own = {"authorization": f"Bearer {token}"}
        answer = httpx.get(
            f"{cluster.apis[0].url}/api/v1/portal/meters/r_tokens/query", headers=own
        )
        assert answer.status_code == 200, answer.text
        assert [row["value"] for row in answer.json()["data"]] == [3]


def test_credits_are_held_here_and_used_up_through_the_sinks(
    cluster: Cluster, api: httpx.Client
) -> None:
    with cluster.explaining():
        bought = eventually(lambda: buy(api), "credits can be bought", 60)
        assert bought.status_code == 201, bought.text
        path = "/api/v1/subjects/buyer/entitlements/credits"
        once = {"idempotency-key": "a hold"}
        first, again = (
            api.post(f"{path}/holds", json={"amount": 12.5}, headers=once) for _ in range(2)
        )
        assert first.status_code == 201, first.text
        assert again.content == first.content
        hold = first.json()["id"]
        assert api.get(f"{path}/value").json()["available"] == 87.5
        assert api.post(f"{path}/holds/{hold}/confirm", json={"amount": 10}).status_code == 200

        def used() -> bool:
            value = api.get(f"{path}/value").json()
            # Neither a gap nor a double count on the way from the hold to the meter.
            assert value["available"] == 90, value
            return bool(value["usage"] == 10)

        eventually(used, "the confirmed amount is usage", 60)
        record = {"context": "system", "modelId": "gpt-4o", "inputTokens": 1000, "outputTokens": 0}
        made = api.post("/api/v1/usage", json={**record, "usageType": "text", "externalId": "b"})
        assert made.status_code == 201, made.text
        summary = api.get("/api/v1/usage/summary", params={"wait": "true"}).json()
        assert summary["totalInputTokens"] == 1000


def test_another_api_server_sees_and_answers_the_same(
    cluster: Cluster, gateways: list[httpx.Client], api: httpx.Client
) -> None:
    with cluster.explaining():
        send(gateways[0], [event(str(n), type="r-shared") for n in range(_BATCH)])
        second = cluster.add("api").spawn().wait_ready()
        with second.client() as other:
            make_meter(api, "r_shared", "COUNT", eventType="r-shared")
            wait_total(other, "r_shared", _BATCH)
            assert rows(other, "r_shared") == rows(api, "r_shared")
            # It takes events as well, so that a client needs no other address.
            send(other, [event("through-api", type="r-shared")])
            wait_total(api, "r_shared", _BATCH + 1)
        assert second.stop() == 0


def test_the_command_line_works_on_a_deployment(
    cluster: Cluster, gateways: list[httpx.Client], api: httpx.Client
) -> None:
    assert "nothing to do" in cluster.cli("migrate").stdout
    doctor = cluster.cli("doctor", "--set", "server.role=api")
    said = " ".join(doctor.stdout.split())
    assert doctor.returncode == 0, said
    for backend in ("Kafka", "ClickHouse", "PostgreSQL"):
        assert f"{backend} ok" in said
    assert "closed: requests need an API key" in said
    assert cluster.key.rpartition("_")[2] not in said
    listed = cluster.cli("keys", "list").stdout
    assert "the first key" in listed
    make_meter(api, "r_asked", "SUM", eventType="r-asked", valueProperty="$.n")
    send(gateways[0], [event("asked", type="r-asked", data={"n": 19577})])
    wait_total(api, "r_asked", 19577)
    query = ("query", "r_asked", "--url", cluster.apis[0].url, "--api-key", cluster.key)
    assert "19577" in cluster.cli(*query, "--format", "csv").stdout


def test_doctor_says_which_backend_is_away(cluster: Cluster) -> None:
    away = ("--set", "clickhouse.url=http://127.0.0.1:9", "--set", "server.role=sink")
    done = cluster.cli("doctor", *away)
    said = " ".join(done.stdout.split())
    assert done.returncode == 1
    assert "ClickHouse failed" in said
    assert "Kafka ok" in said


def test_a_start_without_its_backends_ends_with_a_sentence(cluster: Cluster) -> None:
    nobody = KafkaOptions(bootstrap="127.0.0.1:9").bootstrap
    done = cluster.cli(
        "serve", "--role", "ingest", "--port", 0,
        "--set", f"kafka.bootstrap={nobody}", "--set", "server.start_wait_seconds=0",
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


def test_a_stop_hands_over_and_loses_nothing(
    cluster: Cluster, gateways: list[httpx.Client], api: httpx.Client
) -> None:
    with cluster.explaining():
        make_meter(api, "r_stop", "COUNT", eventType="r-stop")
        sent = 0
        leaving, staying = cluster.sinks
        for turn in range(3):
            for batch in range(10):
                send(
                    gateways[batch % 2],
                    [event(f"{turn}-{batch}-{n}", type="r-stop") for n in range(20)],
                )
                sent += 20
            if turn == 0:
                # It finishes what it began, and the other one gets its partitions.
                assert leaving.stop() == 0
                cluster.wait_shared()
                assert len(staying.metric("meterline_sink_lag_events")) == cluster.partitions
            elif turn == 1:
                leaving.restart()
                cluster.wait_shared()
        wait_total(api, "r_stop", sent)
