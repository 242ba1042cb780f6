"""`/api/v1/subjects` as OpenMeter's clients know it."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from aggregator.api.subjects import router
from aggregator.subjects import SubjectLimits, SubjectService
from meterline.db.keys import SqlKeyStore
from meterline.web.auth import Authenticator
from meterline.web.keys import KeyService
from tests.aggregator.test_subjects import HOSTILE, Purges
from tests.support.api import app_of, assert_problem, client_of
from tests.support.clock import FixedClock
from tests.support.database import migrated

URL = "/api/v1/subjects"


class Server:
    def __init__(self, client: httpx.AsyncClient, keys: KeyService, purges: Purges) -> None:
        self.client = client
        self.keys = keys
        self.purges = purges


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with migrated(tmp_path) as database:
        store = SqlKeyStore(database)
        authenticator = Authenticator(store)
        purges = Purges()
        service = SubjectService(database, FixedClock(), purges, SubjectLimits(max_page=3))
        async with client_of(app_of(authenticator, router(service))) as client:
            yield Server(client, KeyService(store, FixedClock(), authenticator), purges)


@pytest.fixture
def client(server: Server) -> httpx.AsyncClient:
    return server.client


async def test_the_life_of_a_subject(client: httpx.AsyncClient, server: Server) -> None:
    body = [{"key": "customer-1", "displayName": "ACME", "metadata": {"a": {"b": [1]}}}]
    made = await client.post(URL, json=body)
    assert made.status_code == 200
    assert made.headers["content-type"] == "application/json"
    [subject] = made.json()
    assert subject == {
        "id": subject["id"],
        "key": "customer-1",
        "displayName": "ACME",
        "metadata": {"a": {"b": [1]}},
        "createdAt": "2026-03-01T12:00:00Z",
        "updatedAt": "2026-03-01T12:00:00Z",
    }
    kept = await client.post(URL, json=[{"key": "customer-1", "stripeCustomerId": "cus_1"}])
    assert kept.json() == [subject]
    cleared = await client.post(URL, json=[{"key": "customer-1", "displayName": None}])
    assert cleared.json()[0]["displayName"] is None
    assert cleared.json()[0]["metadata"] == subject["metadata"]
    listed = await client.get(URL)
    assert listed.json() == cleared.json() == [(await client.get(f"{URL}/customer-1")).json()]
    gone = await client.delete(f"{URL}/customer-1")
    assert (gone.status_code, gone.content) == (204, b"")
    assert "content-type" not in gone.headers
    assert_problem(await client.get(f"{URL}/customer-1"), 404)
    assert_problem(await client.delete(f"{URL}/customer-1"), 404)
    assert server.purges.done == []
    assert (await client.delete(f"{URL}/customer-1?purgeUsage=true")).status_code == 204
    assert server.purges.done == [("default", "customer-1")]


@pytest.mark.parametrize("key", [key for key in HOSTILE if key not in ("/", "..")])
async def test_strange_keys_over_http(client: httpx.AsyncClient, key: str) -> None:
    assert (await client.post(URL, json=[{"key": key}])).status_code == 200
    found = await client.get(f"{URL}/{quote(key, safe='')}")
    assert found.json()["key"] == key
    assert (await client.delete(f"{URL}/{quote(key, safe='')}")).status_code == 204


@pytest.mark.parametrize("path", ["%00", "%0A", "%C2%80", "", "x" * 5_000, "%7F"])
async def test_impossible_keys(client: httpx.AsyncClient, path: str) -> None:
    assert_problem(await client.get(f"{URL}/{path}"), 404)
    assert_problem(await client.delete(f"{URL}/{path}?purgeUsage=true"), 404)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"null",
        b"[{}]",
        b'[{"key": ""}]',
        b'[{"key": 1}]',
        b'[{"key": "a\\u0000"}]',
        b'[{"key": "\\ud800"}]',
        b'[{"key": "a", "metadata": []}]',
        b'[{"key": "a", "metadata": {"x": NaN}}]',
        b'[{"key": "a", "metadata": {"x": 1e999}}]',
        b'[{"key": "a", "metadata": {"x": 99999999999999999999}}]',
        b'[{"key": "a", "metadata": {"x": "\\ud800"}}]',
        b'[{"key": "a", "metadata": {"\\ud800": "x"}}]',
        b'[{"key": "a", "metadata": {"x": ' + b"[" * 500 + b"]" * 500 + b"}}]",
        b"[" * 100_000,
    ],
)
async def test_bad_bodies(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post(URL, content=body, headers={"content-type": "application/json"})
    assert_problem(response, 400)
    assert (await client.get(URL)).json() == []


async def test_pages_follow_the_link(client: httpx.AsyncClient) -> None:
    await client.post(URL, json=[{"key": f"k/ü {number}"} for number in range(7)])
    url: str | None = f"{URL}?limit=2"
    seen = []
    while url:
        response = await client.get(url)
        seen += [one["key"] for one in response.json()]
        url = response.links.get("next", {}).get("url")
    assert seen == [f"k/ü {number}" for number in range(7)]
    assert len((await client.get(URL)).json()) == 3
    for query in ("limit=0", "limit=4", "limit=x", "cursor=x", "cursor="):
        assert_problem(await client.get(f"{URL}?{query}"), 400)


async def test_scopes_and_namespaces(client: httpx.AsyncClient, server: Server) -> None:
    texts = {
        name: (await server.keys.create(namespace, [scope]))[1]
        for name, namespace, scope in (
            ("admin", "mine", "admin"),
            ("reader", "mine", "read"),
            ("sender", "mine", "ingest"),
            ("other", "theirs", "admin"),
        )
    }
    headers = {name: {"authorization": f"Bearer {text}"} for name, text in texts.items()}
    body = [{"key": "a"}]
    assert_problem(await client.post(URL, json=body), 401)
    assert_problem(await client.post(URL, json=body, headers=headers["reader"]), 403)
    assert (await client.post(URL, json=body, headers=headers["admin"])).status_code == 200
    assert len((await client.get(URL, headers=headers["reader"])).json()) == 1
    assert_problem(await client.get(URL, headers=headers["sender"]), 403)
    assert_problem(await client.delete(f"{URL}/a", headers=headers["reader"]), 403)
    assert (await client.get(URL, headers=headers["other"])).json() == []
    assert_problem(await client.get(f"{URL}/a", headers=headers["other"]), 404)
    assert_problem(await client.delete(f"{URL}/a", headers=headers["other"]), 404)
