"""The API for keys, over the real database."""

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import text

from meterline.db.engine import Database
from meterline.db.keys import SqlKeyStore
from meterline.kernel.errors import ConflictError
from meterline.web.auth import Authenticator
from meterline.web.keys import KeyLimits, KeyService, router
from tests.support.api import app_of, assert_problem, client_of
from tests.support.clock import FixedClock


@pytest.fixture
def database(any_database: Database) -> Database:
    return any_database


@pytest.fixture
def service(database: Database) -> KeyService:
    store = SqlKeyStore(database)
    return KeyService(store, FixedClock(), Authenticator(store))


@pytest.fixture
async def client(service: KeyService) -> AsyncIterator[httpx.AsyncClient]:
    assert service._authenticator is not None
    async with client_of(app_of(service._authenticator, router(service))) as client:
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def test_the_life_of_a_key(client: httpx.AsyncClient, database: Database) -> None:
    body = {"name": "boss", "scopes": ["admin"]}
    made = await client.post("/api/v1/keys", json=body)
    assert made.status_code == 201
    assert made.headers["content-type"] == "application/json"
    key = made.json()
    assert key["key"].startswith(key["prefix"] + "_")
    assert (key["name"], key["namespace"], key["scopes"]) == ("boss", "default", ["admin"])
    assert key["createdAt"] == "2026-03-01T12:00:00Z"

    # The server is closed from now on.
    assert_problem(await client.get("/api/v1/keys"), 401)
    listed = await client.get("/api/v1/keys", headers=bearer(key["key"]))
    del key["key"]
    assert listed.json() == [key]
    assert "content-type" in listed.headers

    async with database.read() as conn:
        kept = str((await conn.execute(text("SELECT * FROM api_keys"))).all())
    secret = made.json()["key"].removeprefix(key["prefix"] + "_")
    assert secret not in kept and key["prefix"] in kept

    reader = await client.post(
        "/api/v1/keys", json={"scopes": ["read"]}, headers=bearer(made.json()["key"])
    )
    assert_problem(await client.get("/api/v1/keys", headers=bearer(reader.json()["key"])), 403)
    gone = await client.delete(
        f"/api/v1/keys/{reader.json()['id']}", headers=bearer(made.json()["key"])
    )
    assert (gone.status_code, gone.content) == (204, b"")
    assert_problem(await client.get("/api/v1/keys", headers=bearer(reader.json()["key"])), 401)


async def test_an_administrator_sees_its_own_namespace_only(
    client: httpx.AsyncClient, service: KeyService
) -> None:
    _, mine = await service.create("mine", ["admin"])
    theirs, _ = await service.create("theirs", ["admin"])
    listed = (await client.get("/api/v1/keys", headers=bearer(mine))).json()
    assert [one["namespace"] for one in listed] == ["mine"]
    other = await client.delete(f"/api/v1/keys/{theirs.id}", headers=bearer(mine))
    assert_problem(other, 404)
    assert len(await service.list()) == 2
    made = await client.post("/api/v1/keys", json={"scopes": ["read"]}, headers=bearer(mine))
    assert made.json()["namespace"] == "mine"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"scopes": []},
        {"scopes": ["root"]},
        {"scopes": ["read"] * 17},
        {"scopes": ["read"], "name": "\x00"},
        {"scopes": ["read"], "namespace": "theirs"},
        [],
        None,
    ],
)
async def test_bad_requests_make_no_key(client: httpx.AsyncClient, body: object) -> None:
    assert_problem(await client.post("/api/v1/keys", json=body), 400)
    assert (await client.get("/api/v1/keys")).json() == []


@pytest.mark.parametrize("key_id", ["x", "%00", "'; DROP TABLE api_keys; --", "ü", "a" * 5000])
async def test_no_such_key(client: httpx.AsyncClient, key_id: str) -> None:
    assert_problem(await client.delete(f"/api/v1/keys/{key_id}"), 404)


async def test_the_command_line_may_name_any_namespace(service: KeyService) -> None:
    key, _ = await service.create("acme", ["read"])
    await service.revoke(key.id)
    assert await service.list() == []


async def test_a_namespace_has_a_limit_of_keys(database: Database) -> None:
    service = KeyService(SqlKeyStore(database), FixedClock(), limits=KeyLimits(max_keys=2))
    first, _ = await service.create("a", ["read"])
    await service.create("a", ["read"])
    await service.create("b", ["read"])
    with pytest.raises(ConflictError, match="2 keys"):
        await service.create("a", ["read"])
    await service.revoke(first.id)
    await service.create("a", ["read"])
