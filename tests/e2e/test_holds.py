"""Holds over a whole server: its sink settles them, and a crash loses none."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.postgres import PostgresCluster
from tests.support.server import MeterlineServer, eventually

StartServer = Callable[..., MeterlineServer]
ROUNDS, CLIENTS = 12, 4


def _give(client: httpx.Client, subject: str, amount: int) -> None:
    path = f"/api/v1/subjects/{subject}/credits"
    client.post(path, json={"amount": amount}).raise_for_status()


def test_a_poller_sees_neither_a_gap_nor_a_double_count(server: MeterlineServer) -> None:
    with server.client() as client:
        _give(client, "polled", 1000)
    asyncio.run(_poll_while_holds_settle(server.url))


async def _poll_while_holds_settle(url: str) -> None:
    begun = done = polls = 0
    stop = asyncio.Event()
    path = "/api/v1/subjects/polled/entitlements/credits"

    async def use(http: httpx.AsyncClient) -> None:
        nonlocal begun, done
        for _ in range(ROUNDS):
            begun += 1
            opened = await http.post(f"{path}/holds", json={"amount": 1})
            opened.raise_for_status()
            done += 1
            hold = opened.json()["id"]
            (await http.post(f"{path}/holds/{hold}/confirm")).raise_for_status()

    async def poll(http: httpx.AsyncClient) -> None:
        nonlocal polls
        while not stop.is_set():
            at_most = 1000 - done
            found = (await http.get(f"{path}/value")).json()
            assert 1000 - begun <= found["available"] <= at_most, (begun, done, found)
            polls += 1
            if found["usage"] == ROUNDS * CLIENTS:
                stop.set()

    async with httpx.AsyncClient(base_url=url, timeout=30.0) as http, asyncio.timeout(60):
        await asyncio.gather(poll(http), *(use(http) for _ in range(CLIENTS)))
        found = (await http.get(f"{path}/value")).json()
    assert (found["balance"], found["held"]) == (1000 - begun, 0)
    assert polls > ROUNDS


def test_a_confirmed_hold_is_counted_though_the_server_was_killed(
    start_server: StartServer,
) -> None:
    server = start_server(environment={"METERLINE_CREDITS__RESEND_SECONDS": "0.1"})
    value = "/api/v1/subjects/ann/entitlements/credits/value"
    with server.client() as client:
        _give(client, "ann", 100)
        body = {"accountId": "ann", "amount": 10, "id": "r"}
        client.post("/api/v1/reservations", json=body).raise_for_status()
        confirmed = client.post("/api/v1/reservations/r/confirm").raise_for_status().json()
    server.kill()
    server.restart()

    def counted() -> bool:
        with server.client() as client:
            told = client.get(value).raise_for_status().json()
            assert told["available"] == 90
            return bool(told["usage"] == 10 and told["held"] == 0)

    eventually(counted, "the usage of the hold")
    with server.client() as client:
        again = client.post("/api/v1/reservations/r/confirm").raise_for_status().json()
        told = client.get("/api/v1/subjects/ann/credits").raise_for_status().json()
    assert again == confirmed
    assert [(one["kind"], one["amount"]) for one in told["items"]] == [
        ("usage", -10),
        ("grant", 100),
    ]


@contextmanager
def _server_on(database: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a server that keeps what it knows in a database of the kind."""
    environment = {}
    if database == "postgresql":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        environment = {"METERLINE_DATABASE__URL": cluster.create_database(empty=True)}
    with MeterlineServer(folder / "data", environment=environment) as running:
        yield running.url


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_all_who_come_at_once_are_answered(
    database: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A grant throws the live row away; whoever comes while it is built anew waits for it."""
    with _server_on(database, tmp_path, request) as url:
        asyncio.run(_come_at_once(url))


async def _come_at_once(url: str) -> None:
    path, places = "/api/v1/subjects/many", range(8)
    start = {"userId": "many", "model": "mine", "provisionalTokens": {"inputTokens": 1_000_000}}
    async with httpx.AsyncClient(base_url=url, timeout=60.0) as http, asyncio.timeout(120):
        rate = {"model": "mine", "inputRate": 1, "outputRate": 1}
        (await http.post("/api/v1/credit-rates", json=rate)).raise_for_status()

        async def give(place: int, round_: int) -> httpx.Response:
            headers = {"idempotency-key": f"{round_}-{place}"}
            return await http.post(f"{path}/credits", json={"amount": 10}, headers=headers)

        async def use(place: int) -> httpx.Response:
            match place % 4:
                case 0:
                    body = {"accountId": "many", "amount": 1}
                    return await http.post("/api/v1/reservations", json=body)
                case 1:
                    return await http.post("/api/v1/usage-transactions", json=start)
                case 2:
                    return await http.get(f"{path}/credits")
            return await http.get(f"{path}/entitlements/credits/value")

        told = Counter[int]()
        for round_ in range(6):
            given = await asyncio.gather(*(give(place, round_) for place in places))
            used = await asyncio.gather(give(8, round_), *(use(place) for place in places))
            told.update(one.status_code for one in (*given, *used))
        found = (await http.get(f"{path}/credits")).raise_for_status().json()
    assert set(told) <= {200, 201}, told
    assert (found["balance"], found["held"]) == (6 * 9 * 10, 6 * 4)
