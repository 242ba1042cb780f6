"""`meterline migrate-data`: a folder into a real deployment, cut short anywhere, all of it once."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import httpx
import pytest

from aggregator.stores.clickhouse import ClickHouseEngine
from aggregator.stores.state import MOVED
from meterline.server.moving.telling import STEPS
from tests.support.kafka import KafkaBroker
from tests.support.meters import event, make_meter, send, total, wait_total
from tests.support.moving import Embedded, Target, answers, balances, build, resent
from tests.support.postgres import PostgresCluster
from tests.support.server import MeterlineServer, eventually

MakeTarget = Callable[[], Target]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    return build(tmp_path_factory.mktemp("embedded") / "data")


@pytest.fixture
def target(tmp_path: Path, kafka_broker: KafkaBroker, postgres: PostgresCluster) -> Target:
    return Target(tmp_path / "deployment", kafka_broker, postgres)


def client_of(url: str, embedded: Embedded, namespace: str = "default") -> httpx.Client:
    headers = {"authorization": f"Bearer {embedded.keys[namespace]}"}
    return httpx.Client(base_url=url, headers=headers, timeout=60.0)


@pytest.fixture
def api(target: Target, embedded: Embedded) -> Iterator[Callable[[], httpx.Client]]:
    """Starts servers on the deployment, and gives a client of them."""
    clients: list[httpx.Client] = []

    def start() -> httpx.Client:
        target.cluster.__enter__()
        clients.append(client_of(target.cluster.apis[0].url, embedded))
        return clients[0]

    yield start
    for one in clients:
        one.close()
    target.cluster.close()


def test_everything_is_there_and_nothing_counts_again(
    target: Target, embedded: Embedded, tmp_path: Path, api: Callable[[], httpx.Client]
) -> None:
    folder = embedded.copied(tmp_path / "data")
    done = target.move(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "events: 437" in done.stderr
    assert f"wait in the log: {embedded.rest}" in done.stderr
    assert "keys of erased events: 5" in done.stderr
    client = api()
    with target.cluster.explaining():
        assert answers(client) == embedded.totals
        assert balances(client) == embedded.value
        # All again, in another order, with what was erased: only the new one counts.
        again = [*reversed(embedded.sent["default"]), *resent()]
        for start in range(0, len(again), 50):
            send(client, again[start : start + 50])
        send(client, [event("new", type="t", subject="new", data={"n": 1})])
        wait_total(client, "calls", 1, subject="new")
        client.get(
            "/api/v1/subjects/acme/entitlements/tokens/value", params={"wait": "true"}
        ).raise_for_status()
        client.get("/api/v1/events", params={"wait": "true"})
        assert total(client, "calls") == 383
        assert [row for row in answers(client)["calls"] if row[0] != "new"] == (
            embedded.totals["calls"]
        )
        _holds_and_meters_go_on(client, embedded)
    with client_of(target.cluster.apis[0].url, embedded, "two") as other:
        assert total(other, "calls") == 50
    # Once more, beside the servers: what was moved is still as it was.
    done = target.move(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is left" in done.stderr


def _holds_and_meters_go_on(client: httpx.Client, embedded: Embedded) -> None:
    credits = "/api/v1/subjects/acme/entitlements/credits"
    client.post(f"{credits}/holds/{embedded.hold}/confirm", json={}).raise_for_status()

    def settled() -> bool:
        value = client.get(f"{credits}/value").json()
        assert value["available"] == 960, value
        return bool(value["usage"] == 40)

    eventually(settled, "the hold that was moved is usage", 30)
    # A meter that is made now counts what was moved.
    make_meter(client, "later", "COUNT", eventType="t")
    wait_total(client, "later", 383)
    shown = client.get("/api/v1/events", params={"type": "t", "hasError": "true"}).json()
    assert sum("conflict" in one["validationError"] for one in shown) == 3


def test_cut_short_at_every_step_it_ends_with_the_same(
    target: Target, embedded: Embedded, tmp_path: Path
) -> None:
    folder = embedded.copied(tmp_path / "data")
    random = Random(2027)
    often = {"keys": 3, "events": 3, "chunk": 3, "erased": 2}
    steps = [f"{step}:{random.randint(1, often.get(step, 1))}" for step in STEPS]
    print(steps)
    # Killed in the midst of the events, of the transaction with all tables, and at the end; before
    # each of these it is broken off at one step after the other.
    copied = STEPS.index("copied") + 1
    for some in (["events:2"], steps[:copied], steps[copied:]):
        assert target.move_until(folder, *some) != 0, f"{some} was not reached"
    done = target.move(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is left" in done.stderr


def test_a_folder_that_went_on_meanwhile_is_moved_as_it_is_now(
    target: Target, embedded: Embedded, tmp_path: Path
) -> None:
    folder = embedded.copied(tmp_path / "data")
    assert target.move_until(folder, "tables") != 0
    # Servers of the deployment are kept away meanwhile.
    refused = target.cluster.cli("rebuild-usage", "--verify")
    assert refused.returncode == 1
    assert "half moved" in refused.stderr
    with MeterlineServer(folder) as server, client_of(server.url, embedded) as client:
        send(client, [event("meanwhile", type="t", data={"n": 1})])
        wait_total(client, "calls", 383)
        done = target.move(folder)
        assert done.returncode == 1
        assert "stop the server that uses" in done.stderr
    done = target.move(folder, "--no-warm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "begins anew" in done.stderr
    assert "events: 438" in done.stderr


def test_what_differs_is_found_and_what_cannot_be_moved_is_said(
    target: Target, embedded: Embedded, tmp_path: Path
) -> None:
    folder, other = (embedded.copied(tmp_path / name) for name in ("data", "other"))
    done = target.move(folder, "--no-warm")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "differs" not in done.stdout
    done = target.move(other)
    assert done.returncode == 1
    assert "another data folder was moved into this deployment before" in done.stderr
    done = target.move(tmp_path)
    assert done.returncode == 1
    assert "no data folder of Meterline" in done.stderr
    asyncio.run(_tamper(target))
    done = target.move(folder)
    assert done.returncode == 1
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {tuple(line[:2]) for line in lines if line and line[-1] == "differs"} == {
        ("default", "384"),
        # Meters that read the same value share their points.
        ("two", "gauge"),
        ("two", "high"),
        ("two", "mean"),
    }
    assert "keys of events: 442 in the folder, 437 moved" in done.stdout


async def _tamper(target: Target) -> None:
    """An event twice, a point less, and the keys of erased events gone."""
    mean = (
        "series = (SELECT max(series) FROM points WHERE part = {part} AND value = 0.25)"
        " AND value = 0.25"
    )
    engine = ClickHouseEngine(target.store)
    moved = f"part = {MOVED}"
    try:
        for statement in (
            f"INSERT INTO events SELECT * FROM events WHERE {moved} AND ns = 'default' LIMIT 1",
            f"ALTER TABLE points DELETE WHERE {mean.format(part=MOVED)}",
            f"ALTER TABLE keys DELETE WHERE {moved}",
        ):
            await engine.execute(statement, None, {"mutations_sync": 2})
    finally:
        await engine.close()
