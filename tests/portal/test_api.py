"""`/api/v1/portal`: tokens for the back end, one subject's meters for the browser."""

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from fastapi import FastAPI

from aggregator.params import query_input
from aggregator.query import QueryInput, QueryLimits, QueryRow, build_query
from aggregator.service import QueryResult
from meterline.db.engine import Database
from meterline.db.keys import SqlKeyStore
from meterline.kernel.errors import NotFoundError
from meterline.kernel.meters import Aggregation, Meter
from meterline.web.auth import Authenticator
from meterline.web.keys import KeyService
from meterline.web.keys import router as keys_router
from portal.api import query_router, tokens_router
from portal.cors import PortalCors
from portal.store import SqlTokenStore
from portal.tokens import PortalService
from tests.support.api import app_of, assert_problem, client_of
from tests.support.clock import FixedClock
from tests.support.database import migrated

TOKENS = "/api/v1/portal/tokens"
QUERY = "/api/v1/portal/meters/tokens/query"
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class FakeMeters:
    """Two meters in every namespace; answers a row that tells what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None, QueryInput]] = []

    async def get(self, namespace: str, id_or_slug: str) -> Meter:
        if id_or_slug not in ("tokens", "calls"):
            raise NotFoundError("there is no such meter")
        return Meter(
            "m", namespace, id_or_slug, id_or_slug, None, Aggregation.SUM, "llm", "$.tokens",
            {"model": "$.model"}, None, {}, NOW, NOW,
        )  # fmt: skip

    async def query_from_params(
        self,
        namespace: str,
        id_or_slug: str,
        params: Iterable[tuple[str, str]],
        *,
        subject: str | None = None,
    ) -> QueryResult:
        meter = await self.get(namespace, id_or_slug)
        given = query_input(params)
        self.asked.append((namespace, id_or_slug, subject, given))
        row = QueryRow(NOW, NOW + timedelta(minutes=1), subject, {}, Decimal("0.10"))
        return QueryResult(meter, build_query(meter, given, QueryLimits()), [row])


class Server:
    def __init__(self, database: Database) -> None:
        self.clock = FixedClock(NOW)
        self.meters = FakeMeters()
        store = SqlKeyStore(database)
        authenticator = Authenticator(store)
        self.keys = KeyService(store, self.clock, authenticator)
        self.portal = PortalService(SqlTokenStore(database), self.clock)
        routers = (
            keys_router(self.keys),
            tokens_router(self.portal, self.meters, self.clock),
            query_router(self.portal, self.meters),
        )
        self.app = PortalCors(app_of(authenticator, *routers))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with migrated(tmp_path) as database:
        yield Server(database)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(server.app) as client:
        yield client


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


async def issue(client: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    response = await client.post(TOKENS, json={"subject": "customer-1", **body})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    made: dict[str, Any] = response.json()
    return made


async def test_issuing_and_listing(client: httpx.AsyncClient, server: Server) -> None:
    made = await issue(client, expiresAt="2026-03-01T13:30:00+01:00", allowedMeterSlugs=["tokens"])
    assert made == {
        "id": made["id"],
        "subject": "customer-1",
        "token": made["token"],
        "createdAt": "2026-03-01T12:00:00Z",
        "expiresAt": "2026-03-01T12:30:00Z",
        "expired": False,
        "allowedMeterSlugs": ["tokens"],
    }
    server.clock.advance(1)
    plain = await issue(client)
    assert "allowedMeterSlugs" not in plain
    server.clock.advance(1_799)
    listed = await client.get(TOKENS)
    for one in (made, plain):
        del one["token"]
    assert listed.json() == [plain, {**made, "expired": True}]
    assert len((await client.get(f"{TOKENS}?limit=1")).json()) == 1
    for limit in ("0", "101", "x"):
        assert_problem(await client.get(f"{TOKENS}?limit={limit}"), 400)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"subject": ""},
        {"subject": "a\0"},
        {"subject": 1},
        {"subject": "a", "expiresAt": "2026-03-01T11:59:59Z"},
        {"subject": "a", "expiresAt": "2026-03-01T12:30:00"},
        {"subject": "a", "expiresAt": "9999-12-31T23:59:59-12:00"},
        {"subject": "a", "expiresAt": "0001-01-01T00:00:00+12:00"},
        {"subject": "a", "expiresAt": 1e300},
        {"subject": "a", "expiresAt": "tomorrow"},
        {"subject": "a", "allowedMeterSlugs": []},
        {"subject": "a", "allowedMeterSlugs": ["tokens"] * 101},
        {"subject": "a", "allowedMeterSlug": ["tokens"]},
        [],
    ],
)
async def test_bad_tokens(client: httpx.AsyncClient, body: object) -> None:
    assert_problem(await client.post(TOKENS, json=body), 400)


@pytest.mark.parametrize("slug", ["unknown", "../x", "a\0", "x" * 500])
async def test_a_token_for_an_unknown_meter(client: httpx.AsyncClient, slug: str) -> None:
    body = {"subject": "a", "allowedMeterSlugs": ["tokens", slug]}
    assert_problem(await client.post(TOKENS, json=body), 404)
    assert (await client.get(TOKENS)).json() == []


async def test_a_query_answers_for_the_tokens_subject_only(
    client: httpx.AsyncClient, server: Server
) -> None:
    token = (await issue(client, subject="ü/1"))["token"]
    response = await client.get(
        f"{QUERY}?subject=other&subject[]=another&windowSize=DAY&groupBy=model"
        "&filterGroupBy[model]=gpt&from=2026-03-01T00:00:00Z",
        headers=bearer(token),
    )
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.text.count('"value":0.1,') == 1
    [(namespace, slug, subject, given)] = server.meters.asked
    assert (namespace, slug, subject) == ("default", "tokens", "ü/1")
    assert list(given.subjects) == []
    assert (given.window_size, list(given.group_by)) == ("DAY", ["model"])
    assert given.filters == {"model": "gpt"}
    assert given.begin == "2026-03-01T00:00:00Z"

    as_csv = await client.get(QUERY, headers={**bearer(token), "accept": "text/csv"})
    assert as_csv.text.startswith("window_start,window_end,")
    assert as_csv.headers["content-disposition"] == 'attachment; filename="tokens.csv"'


async def test_only_allowed_meters(client: httpx.AsyncClient) -> None:
    token = (await issue(client, allowedMeterSlugs=["tokens"]))["token"]
    assert (await client.get(QUERY, headers=bearer(token))).status_code == 200
    for slug in ("calls", "unknown", "m", "TOKENS"):
        url = f"/api/v1/portal/meters/{slug}/query"
        assert_problem(await client.get(url, headers=bearer(token)), 403)
    everything = (await issue(client))["token"]
    unknown = await client.get("/api/v1/portal/meters/unknown/query", headers=bearer(everything))
    assert_problem(unknown, 404)
    assert_problem(await client.get(f"{QUERY}?windowSize=WEEK", headers=bearer(everything)), 400)


async def test_what_is_no_token(client: httpx.AsyncClient, server: Server) -> None:
    token = (await issue(client))["token"]
    _, key = await server.keys.create("default", ["admin", "read"])
    header, payload, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    for wrong in (
        None,
        "",
        key,  # an API key instead of a token
        f"{header}.{payload}.",
        f"{header}.{payload}.{signature[::-1]}",
        jwt.encode(claims, "x" * 32),
        jwt.encode(claims, "", algorithm="none"),
        token + "x",
    ):
        headers = {} if wrong is None else bearer(wrong)
        response = await client.get(QUERY, headers=headers)
        assert_problem(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["access-control-allow-origin"] == "*"
    assert (await client.get(QUERY, headers=bearer(token))).status_code == 200
    server.clock.advance(3_600)
    assert_problem(await client.get(QUERY, headers=bearer(token)), 401)
    assert server.meters.asked and len(server.meters.asked) == 1


@pytest.mark.parametrize("closed", [False, True])
async def test_a_token_is_no_api_key(
    client: httpx.AsyncClient, server: Server, closed: bool
) -> None:
    token = (await issue(client))["token"]
    if closed:
        await server.keys.create("default", ["admin"])
    for method, url in (("GET", TOKENS), ("POST", TOKENS), ("GET", "/api/v1/keys")):
        assert_problem(await client.request(method, url, headers=bearer(token)), 401)


async def test_revoking(client: httpx.AsyncClient) -> None:
    made = [await issue(client, subject=subject) for subject in ("a", "a", "b", "c")]

    async def alive() -> list[bool]:
        answers = [await client.get(QUERY, headers=bearer(one["token"])) for one in made]
        return [answer.status_code == 200 for answer in answers]

    async def invalidate(body: Any) -> None:
        response = await client.post(f"{TOKENS}/invalidate", json=body)
        assert (response.status_code, response.content) == (204, b"")
        assert "content-type" not in response.headers

    assert await alive() == [True] * 4
    await invalidate({"id": made[0]["id"]})
    assert await alive() == [False, True, True, True]
    await invalidate({"subject": "a"})
    assert await alive() == [False, False, True, True]
    await invalidate({"subject": "nobody"})
    await invalidate({"id": "nothing\0"})
    assert len((await client.get(TOKENS)).json()) == 2
    typos: tuple[Any, ...] = ({"tokenId": "x"}, {"id": 1}, [], "x")
    for typo in typos:
        assert_problem(await client.post(f"{TOKENS}/invalidate", json=typo), 400)
    assert await alive() == [False, False, True, True]
    await invalidate({})
    assert await alive() == [False] * 4
    made.append(await issue(client))
    assert (await client.post(f"{TOKENS}/invalidate")).status_code == 204
    assert await alive() == [False] * 5


async def test_scopes_and_namespaces(client: httpx.AsyncClient, server: Server) -> None:
    _, mine = await server.keys.create("mine", ["portal:issue"])
    _, theirs = await server.keys.create("theirs", ["portal:issue"])
    _, reader = await server.keys.create("mine", ["read", "ingest"])
    body = {"subject": "a"}
    assert_problem(await client.post(TOKENS, json=body), 401)
    assert_problem(await client.post(TOKENS, json=body, headers=bearer(reader)), 403)
    assert_problem(await client.get(TOKENS, headers=bearer(reader)), 403)
    made = (await client.post(TOKENS, json=body, headers=bearer(mine))).json()
    assert (await client.get(TOKENS, headers=bearer(theirs))).json() == []
    for which in ({}, {"id": made["id"]}, {"subject": "a"}):
        url = f"{TOKENS}/invalidate"
        assert (await client.post(url, json=which, headers=bearer(theirs))).status_code == 204
    await client.get(QUERY, headers=bearer(made["token"]))
    assert [(one[0], one[2]) for one in server.meters.asked] == [("mine", "a")]


async def test_preflight(client: httpx.AsyncClient, server: Server) -> None:
    asks = {
        "origin": "https://shop.example",
        "access-control-request-method": "GET",
        "access-control-request-headers": "authorization",
    }
    answer = await client.options(QUERY, headers=asks)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-allow-methods"] == "GET, OPTIONS"
    assert answer.headers["access-control-allow-headers"] == "Authorization, Accept, Content-Type"
    assert "access-control-allow-credentials" not in answer.headers
    # Nothing else of the API is for other origins.
    for url in (TOKENS, "/api/v1/keys"):
        elsewhere = await client.options(url, headers=asks)
        assert_problem(elsewhere, 405)
        assert "access-control-allow-origin" not in elsewhere.headers
    wrong_method = await client.post(QUERY, headers={"origin": "https://shop.example"})
    assert_problem(wrong_method, 405)
    assert wrong_method.headers["access-control-allow-origin"] == "*"


async def test_chosen_origins_only(server: Server) -> None:
    app = PortalCors(server.app._app, ["https://shop.example"])
    async with client_of(app) as client:
        for origin, allowed in (
            ("https://shop.example", "https://shop.example"),
            ("https://shop.example.evil", None),
            (None, None),
        ):
            headers = {"origin": origin} if origin else {}
            for answer in (
                await client.options(QUERY, headers=headers),
                await client.get(QUERY, headers=headers),
            ):
                assert answer.headers.get("access-control-allow-origin") == allowed
                assert answer.headers["vary"] == "Origin"


def test_openapi_tells_of_the_query(server: Server) -> None:
    api = FastAPI()
    api.include_router(query_router(server.portal, server.meters))
    operation = api.openapi()["paths"]["/api/v1/portal/meters/{slug}/query"]["get"]
    names = {one["name"] for one in operation["parameters"]}
    assert {"slug", "from", "to", "windowSize", "groupBy", "filterGroupBy"} <= names
    assert "subject" not in names
    assert operation["security"] == [{"PortalToken": []}]
