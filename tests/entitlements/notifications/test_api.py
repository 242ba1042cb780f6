"""`/api/v1/notification` over HTTP: as OpenMeter's clients call it, and as strangers do."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from entitlements.notifications.api.routes import routers
from entitlements.notifications.options import NotificationLimits
from entitlements.notifications.service import NotificationService
from meterline.db.keys import SqlKeyStore
from meterline.web.auth import Authenticator
from meterline.web.keys import KeyService
from tests.entitlements.notifications.build import FEATURE, URL, FakeReader
from tests.support.api import app_of, assert_problem, client_of
from tests.support.clock import FixedClock
from tests.support.database import migrated

BASE = "/api/v1/notification"
SECRET = "whsec_" + "c2VjcmV0" * 5
THRESHOLD = "entitlements.balance.threshold"
UNKNOWN = "01J50000000000000000000000"


class Server:
    def __init__(self, database: Any) -> None:
        self.clock = FixedClock()
        store = SqlKeyStore(database)
        authenticator = Authenticator(store)
        self.keys = KeyService(store, self.clock, authenticator)
        self.woken = 0
        limits = NotificationLimits(max_channels=4, max_rules=8)
        service = NotificationService(database, FakeReader(), self.clock, limits, wake=self._wake)
        self.app = app_of(authenticator, *routers(service))

    def _wake(self) -> None:
        self.woken += 1


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with migrated(tmp_path) as database:
        yield Server(database)


@pytest.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(server.app) as client:
        yield client


def channel_body(**changes: Any) -> dict[str, Any]:
    return {"type": "WEBHOOK", "name": "hook", "url": URL, **changes}


def rule_body(channel_id: str, **changes: Any) -> dict[str, Any]:
    thresholds = [{"type": "usage_percentage", "value": 80}]
    body = {"type": THRESHOLD, "name": "rule", "channels": [channel_id], "thresholds": thresholds}
    return {**body, **changes}


async def make_channel(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    response = await client.post(f"{BASE}/channels", json=channel_body(**changes))
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def make_rule(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    channel = await make_channel(client)
    response = await client.post(f"{BASE}/rules", json=rule_body(channel["id"], **changes))
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return made


async def test_a_channel_from_its_making_to_its_end(
    client: httpx.AsyncClient, server: Server
) -> None:
    made = await make_channel(
        client, customHeaders={"X-A": "b"}, signingSecret=SECRET, metadata={"k": "v"}
    )
    assert made == {
        "id": made["id"],
        "type": "WEBHOOK",
        "name": "hook",
        "disabled": False,
        "url": URL,
        "metadata": {"k": "v"},
        "customHeaders": {"X-A": "b"},
        "signingSecret": SECRET,
        "createdAt": "2026-03-01T12:00:00Z",
        "updatedAt": "2026-03-01T12:00:00Z",
    }
    url = f"{BASE}/channels/{made['id']}"
    assert (await client.get(url)).json() == made
    server.clock.advance(1)
    changed = (await client.put(url, json=channel_body(name="other", disabled=True))).json()
    assert (changed["name"], changed["disabled"], changed["signingSecret"]) == (
        "other",
        True,
        SECRET,
    )
    assert changed["updatedAt"] == "2026-03-01T12:00:01Z"
    listed = (await client.get(f"{BASE}/channels")).json()
    assert listed == {"totalCount": 0, "page": 1, "pageSize": 100, "items": []}
    listed = (await client.get(f"{BASE}/channels?includeDisabled=true")).json()
    assert [one["id"] for one in listed["items"]] == [made["id"]]
    deleted = await client.delete(url)
    assert (deleted.status_code, deleted.content) == (204, b"")
    shown = (await client.get(url)).json()
    assert shown["deletedAt"] == "2026-03-01T12:00:01Z"
    assert "signingSecret" not in shown
    assert_problem(await client.put(url, json=channel_body()), 404)
    assert_problem(await client.delete(url), 404)
    everything = (
        await client.get(f"{BASE}/channels?includeDisabled=true&includeDeleted=true")
    ).json()
    assert everything["totalCount"] == 1


async def test_a_secret_is_made_when_none_is_given(client: httpx.AsyncClient) -> None:
    first, second = await make_channel(client), await make_channel(client)
    assert first["signingSecret"].startswith("whsec_")
    assert first["signingSecret"] != second["signingSecret"]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"type": "EMAIL"}, "type"),
        ({"name": ""}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"url": ""}, "url"),
        ({"url": "ftp://example.com/"}, "url"),
        ({"url": "https://"}, "url"),
        ({"url": "https://user:password@example.com/"}, "url"),
        ({"url": "https://example.com/#part"}, "url"),
        ({"url": "https://example.com:99999/"}, "url"),
        ({"url": "https://exam ple.com/"}, "url"),
        ({"url": "https://exämple.com/"}, "url"),
        ({"url": "https://example.com/" + "x" * 2_048}, "url"),
        ({"url": "http://127.0.0.1/"}, "url"),
        ({"url": "http://[::1]/"}, "url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "url"),
        ({"url": "http://localhost:8080/"}, "url"),
        ({"signingSecret": "short"}, "signingSecret"),
        ({"signingSecret": "whsec_" + "!" * 40}, "signingSecret"),
        ({"customHeaders": {"Host": "x"}}, "customHeaders.Host"),
        ({"customHeaders": {"Webhook-Id": "x"}}, "customHeaders.Webhook-Id"),
        ({"customHeaders": {"X A": "x"}}, "customHeaders.X A"),
        ({"customHeaders": {"X-A": "x\r\nX-B: y"}}, "customHeaders.X-A"),
        ({"customHeaders": {"X-A": "ü"}}, "customHeaders.X-A"),
        ({"customHeaders": {f"X-{number}": "x" for number in range(33)}}, "customHeaders"),
        ({"disabled": "yes"}, "disabled"),
        ({"unknown": 1}, "unknown"),
    ],
)
async def test_channels_that_are_refused(
    client: httpx.AsyncClient, changes: dict[str, Any], where: str
) -> None:
    response = await client.post(f"{BASE}/channels", json=channel_body(**changes))
    problem = assert_problem(response, 400)
    errors = problem["extensions"]["validationErrors"]  # type: ignore[index]
    assert any(where in error["where"] for error in errors), errors


async def test_a_rule_from_its_making_to_its_end(client: httpx.AsyncClient, server: Server) -> None:
    exact = b"12345678901234567890.123456789012345678"
    channel = await make_channel(client)
    body = rule_body(channel["id"], features=[FEATURE.key], metadata={"k": "v"})
    text = httpx.Request("POST", "/", json=body).content.replace(b'"value":80', b'"value":' + exact)
    response = await client.post(
        f"{BASE}/rules", content=text, headers={"content-type": "application/json"}
    )
    assert response.status_code == 201, response.text
    assert exact in response.content
    made = response.json()
    assert made == {
        "id": made["id"],
        "type": THRESHOLD,
        "name": "rule",
        "disabled": False,
        "channels": [{"id": channel["id"], "type": "WEBHOOK"}],
        "features": [{"id": FEATURE.id, "key": FEATURE.key}],
        "thresholds": [{"type": "usage_percentage", "value": float(exact)}],
        "metadata": {"k": "v"},
        "createdAt": "2026-03-01T12:00:00Z",
        "updatedAt": "2026-03-01T12:00:00Z",
    }
    assert server.woken == 1
    url = f"{BASE}/rules/{made['id']}"
    assert (await client.get(url)).content == response.content
    problem = assert_problem(await client.delete(f"{BASE}/channels/{channel['id']}"), 409)
    assert problem["extensions"] == {"rules": [made["id"]]}
    changed = await client.put(url, json=rule_body(channel["id"], disabled=True))
    assert changed.json()["disabled"] is True
    assert "features" not in changed.json()
    other = rule_body(channel["id"], type="entitlements.reset")
    del other["thresholds"]
    assert_problem(await client.put(url, json=other), 400)
    assert (await client.get(f"{BASE}/rules")).json()["totalCount"] == 0
    assert (await client.get(f"{BASE}/rules?includeDisabled=true")).json()["totalCount"] == 1
    assert (await client.delete(url)).status_code == 204
    assert "deletedAt" in (await client.get(url)).json()
    assert_problem(await client.post(f"{url}/test"), 404)
    assert (await client.delete(f"{BASE}/channels/{channel['id']}")).status_code == 204


@pytest.mark.parametrize(
    "body",
    [
        {"type": "entitlements.reset"},
        {"type": "entitlements.exhausted", "features": [FEATURE.id]},
        {"type": "grants.expiring"},
        {"type": "grants.expiring", "leadTime": "P3D"},
        {"type": "events.rejected"},
    ],
)
async def test_the_other_rules_and_their_tests(
    client: httpx.AsyncClient, body: dict[str, Any]
) -> None:
    channel = await make_channel(client)
    given = {"name": "rule", "channels": [channel["id"]], **body}
    response = await client.post(f"{BASE}/rules", json=given)
    assert response.status_code == 201, response.text
    made = response.json()
    assert made["type"] == body["type"]
    if body["type"] == "grants.expiring":
        assert made["leadTime"] == body.get("leadTime", "P1W")
    again = await client.put(f"{BASE}/rules/{made['id']}", json=given)
    assert again.json() == made
    tested = await client.post(f"{BASE}/rules/{made['id']}/test")
    assert tested.status_code == 201
    assert tested.json()["payload"]["type"] == body["type"]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"type": "invoice.created"}, "body"),
        ({"thresholds": []}, "thresholds"),
        ({"thresholds": [{"type": "usage_value", "value": n} for n in range(11)]}, "thresholds"),
        ({"thresholds": [{"type": "usage_value", "value": 1}] * 2}, "thresholds"),
        ({"thresholds": [{"type": "usage", "value": 1}]}, "thresholds"),
        ({"thresholds": [{"type": "usage_value", "value": -1}]}, "thresholds"),
        ({"thresholds": [{"type": "usage_value", "value": "1"}]}, "thresholds"),
        ({"thresholds": [{"type": "usage_value"}]}, "thresholds"),
        ({"channels": []}, "channels"),
        ({"channels": [UNKNOWN]}, "channels"),
        ({"channels": ["x"]}, "channels"),
        ({"features": ["unknown"]}, "features"),
        ({"leadTime": "P1D"}, "leadTime"),
        ({"name": ""}, "name"),
    ],
)
async def test_rules_that_are_refused(
    client: httpx.AsyncClient, changes: dict[str, Any], where: str
) -> None:
    channel = await make_channel(client)
    response = await client.post(f"{BASE}/rules", json=rule_body(channel["id"], **changes))
    problem = assert_problem(response, 400)
    errors = problem["extensions"]["validationErrors"]  # type: ignore[index]
    assert any(where in error["where"] for error in errors), errors


async def test_a_channel_of_another_namespace_is_none(
    client: httpx.AsyncClient, server: Server
) -> None:
    mine = await make_rule(client)
    channel_id = mine["channels"][0]["id"]
    event = (await client.post(f"{BASE}/rules/{mine['id']}/test")).json()
    _, key = await server.keys.create("other", ["admin"])
    async with client_of(server.app, key) as other:
        for path in (f"channels/{channel_id}", f"rules/{mine['id']}", f"events/{event['id']}"):
            assert_problem(await other.get(f"{BASE}/{path}"), 404)
        assert_problem(await other.put(f"{BASE}/channels/{channel_id}", json=channel_body()), 404)
        assert_problem(await other.delete(f"{BASE}/channels/{channel_id}"), 404)
        assert_problem(await other.delete(f"{BASE}/rules/{mine['id']}"), 404)
        assert_problem(await other.post(f"{BASE}/rules/{mine['id']}/test"), 404)
        assert_problem(await other.post(f"{BASE}/events/{event['id']}/resend", json={}), 404)
        assert_problem(await other.post(f"{BASE}/rules", json=rule_body(channel_id)), 400)
        for what in ("channels", "rules", "events"):
            assert (await other.get(f"{BASE}/{what}")).json()["totalCount"] == 0


async def test_scopes(client: httpx.AsyncClient, server: Server) -> None:
    made = await make_rule(client)
    channel_id = made["channels"][0]["id"]
    _, reader = await server.keys.create("default", ["read"])
    _, ingester = await server.keys.create("default", ["ingest"])
    async with client_of(server.app, reader) as other:
        shown = (await other.get(f"{BASE}/channels/{channel_id}")).json()
        assert "signingSecret" not in shown
        assert "customHeaders" not in shown
        listed = (await other.get(f"{BASE}/channels")).json()["items"]
        assert all("signingSecret" not in one for one in listed)
        assert (await other.get(f"{BASE}/events")).status_code == 200
        assert_problem(await other.post(f"{BASE}/channels", json=channel_body()), 403)
        assert_problem(await other.post(f"{BASE}/rules/{made['id']}/test"), 403)
        assert_problem(await other.delete(f"{BASE}/rules/{made['id']}"), 403)
    async with client_of(server.app, ingester) as other:
        assert_problem(await other.get(f"{BASE}/rules"), 403)
    assert_problem(await client.get(f"{BASE}/rules"), 401)


async def test_testing_and_resending(client: httpx.AsyncClient, server: Server) -> None:
    rule = await make_rule(client)
    channel_id = rule["channels"][0]["id"]
    response = await client.post(f"{BASE}/rules/{rule['id']}/test")
    assert response.status_code == 201
    event = response.json()
    assert event["rule"] == rule
    assert event["annotations"] == {"notification.rule.test": True}
    assert event["payload"]["id"] == event["id"]
    assert event["payload"]["data"]["threshold"] == {"type": "usage_percentage", "value": 80}
    assert event["deliveryStatus"] == [
        {
            "state": "PENDING",
            "reason": "",
            "updatedAt": "2026-03-01T12:00:00Z",
            "channel": {"id": channel_id, "type": "WEBHOOK"},
            "attempts": [],
            "nextAttempt": "2026-03-01T12:00:00Z",
        }
    ]
    url = f"{BASE}/events/{event['id']}"
    assert (await client.get(url)).json() == event
    bodies: list[Any] = [None, {}, {"channels": []}, {"channels": [channel_id]}]
    for body in bodies:
        response = (
            await client.post(f"{url}/resend", json=body)
            if body is not None
            else (await client.post(f"{url}/resend"))
        )
        assert (response.status_code, response.content) == (202, b"")
    assert (await client.get(url)).json()["deliveryStatus"][0]["state"] == "RESENDING"
    assert_problem(await client.post(f"{url}/resend", json={"channels": [UNKNOWN]}), 400)
    assert_problem(await client.post(f"{BASE}/events/{UNKNOWN}/resend", json={}), 404)
    off = channel_body(disabled=True)
    await client.put(f"{BASE}/channels/{channel_id}", json=off)
    assert_problem(await client.post(f"{url}/resend", json={}), 409)
    assert server.woken == 6


async def test_lists_of_events(client: httpx.AsyncClient, server: Server) -> None:
    rule = await make_rule(client, features=[FEATURE.key])
    ids = []
    for _ in range(5):
        server.clock.advance(60)
        ids.append((await client.post(f"{BASE}/rules/{rule['id']}/test")).json()["id"])

    async def listed(**params: Any) -> list[str]:
        response = await client.get(f"{BASE}/events", params=params)
        assert response.status_code == 200, response.text
        return [one["id"] for one in response.json()["items"]]

    assert await listed() == ids[::-1]
    assert await listed(order="ASC") == ids
    assert await listed(orderBy="id", order="ASC") == ids
    assert await listed(page=2, pageSize=2) == ids[::-1][2:4]
    assert (
        await listed(**{"from": "2026-03-01T12:02:00Z", "to": "2026-03-01T12:04:00Z"})
        == ids[3:0:-1]
    )
    assert await listed(rule=[rule["id"], UNKNOWN]) == ids[::-1]
    assert await listed(rule=UNKNOWN) == []
    assert await listed(channel=rule["channels"][0]["id"]) == ids[::-1]
    assert await listed(channel=UNKNOWN) == []
    assert await listed(subject="customer-1") == []
    page = (await client.get(f"{BASE}/events?pageSize=2&page=3")).json()
    assert (page["totalCount"], page["page"], page["pageSize"]) == (5, 3, 2)
    assert len(page["items"]) == 1
    rules = (await client.get(f"{BASE}/rules", params={"feature": FEATURE.id})).json()
    assert rules["totalCount"] == 1
    assert (await client.get(f"{BASE}/rules?feature=other")).json()["totalCount"] == 0
    assert (await client.get(f"{BASE}/rules?channel={UNKNOWN}")).json()["totalCount"] == 0


@pytest.mark.parametrize(
    "query",
    [
        "page=0", "page=x", "page=10000000000", "pageSize=0", "pageSize=1001", "order=up",
        "orderBy=name", "from=yesterday", "to=2026-03-01",
    ],
)  # fmt: skip
async def test_lists_that_are_refused(client: httpx.AsyncClient, query: str) -> None:
    assert_problem(await client.get(f"{BASE}/events?{query}"), 400)


@pytest.mark.parametrize("by", ["id", "type", "createdAt", "updatedAt"])
async def test_orders(client: httpx.AsyncClient, server: Server, by: str) -> None:
    ids = []
    for _ in range(3):
        server.clock.advance(1)
        ids.append((await make_channel(client))["id"])
    for what, order in (("ASC", ids), ("DESC", ids[::-1])):
        response = await client.get(f"{BASE}/channels?orderBy={by}&order={what}")
        assert [one["id"] for one in response.json()["items"]] == order
    assert (await client.get(f"{BASE}/rules?orderBy={by}")).status_code == 200


async def test_limits(client: httpx.AsyncClient) -> None:
    channels = [(await make_channel(client))["id"] for _ in range(4)]
    assert_problem(await client.post(f"{BASE}/channels", json=channel_body()), 409)
    for _ in range(8):
        response = await client.post(f"{BASE}/rules", json=rule_body(channels[0]))
        assert response.status_code == 201
    assert_problem(await client.post(f"{BASE}/rules", json=rule_body(channels[0])), 409)


async def test_ids_in_either_case(client: httpx.AsyncClient) -> None:
    made = await make_channel(client)
    response = await client.post(f"{BASE}/rules", json=rule_body(made["id"].lower()))
    assert response.json()["channels"] == [{"id": made["id"], "type": "WEBHOOK"}]
    assert (await client.get(f"{BASE}/channels/{made['id'].lower()}")).json() == made
