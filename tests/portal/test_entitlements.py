"""`/api/v1/portal/entitlements`: a token reads its own subject's values, and nothing else's."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import pytest_asyncio

from meterline.server.scenario.world import World, new_world

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
ENTITLEMENTS = "/api/v1/portal/entitlements"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world() -> AsyncIterator[World]:
    """Two subjects with a monthly grant of tokens; the first one's is used in part."""
    async with new_world(NOW) as world:
        for slug in ("tokens", "calls"):
            meter = {"slug": slug, "aggregation": "SUM", "eventType": slug, "valueProperty": "$.n"}
            await world.call("POST", "/api/v1/meters", meter)
            feature = {"key": f"ai_{slug}", "meterSlug": slug, "metadata": {"margin": "80 %"}}
            await world.call("POST", "/api/v1/features", feature)
        await world.call("POST", "/api/v1/features", {"key": "sso"})
        for subject, amount in (("acme", 1000), ("globex", 70)):
            path = f"/api/v1/subjects/{subject}/entitlements"
            metered = {
                "type": "metered",
                "usagePeriod": {"interval": "MONTH"},
                "issueAfterReset": amount,
                "metadata": {"note": "pays late"},
            }
            await world.call("POST", path, {**metered, "featureKey": "ai_tokens"})
        path = "/api/v1/subjects/acme/entitlements"
        world.clock.now += timedelta(seconds=1)
        await world.call("POST", path, {**metered, "featureKey": "ai_calls"})
        world.clock.now += timedelta(seconds=1)
        await world.call("POST", path, {"type": "boolean", "featureKey": "sso"})
        event = {
            "specversion": "1.0",
            "id": "1",
            "source": "test",
            "type": "tokens",
            "subject": "acme",
            "time": "2026-03-10T12:00:00Z",
            "data": {"n": "0.5"},
        }
        await world.call(
            "POST", "/api/v1/events", event, content_type="application/cloudevents+json"
        )
        world.clock.now = datetime(2026, 3, 10, 13, 0, tzinfo=UTC)
        yield world


async def token_of(world: World, subject: str, **body: Any) -> str:
    made = await world.call("POST", "/api/v1/portal/tokens", {"subject": subject, **body})
    return str(made["token"])


async def ask(world: World, path: str, token: str | None, **params: str) -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    response = await world.client.get(path, headers=headers, params=params)
    assert response.headers["access-control-allow-origin"] == "*"
    return response.status_code, response.json()


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_token_reads_its_own_values(world: World) -> None:
    token = await token_of(world, "acme")
    status, value = await ask(world, f"{ENTITLEMENTS}/ai_tokens/value", token, wait="true")
    assert status == 200
    assert (value["hasAccess"], value["balance"], value["usage"]) == (True, 999.5, 0.5)
    status, listed = await ask(world, ENTITLEMENTS, token)
    assert status == 200
    assert [one["featureKey"] for one in listed] == ["ai_tokens", "ai_calls", "sso"]
    assert {one["subjectKey"] for one in listed} == {"acme"}
    assert listed[0]["value"] == value
    assert listed[2]["value"] == {"hasAccess": True}
    # What the seller notes is not for its customer.
    assert "pays late" not in str(listed) and "margin" not in str(listed)


async def test_a_value_at_a_time(world: World) -> None:
    token = await token_of(world, "acme")
    path = f"{ENTITLEMENTS}/ai_tokens/value"
    status, value = await ask(world, path, token, time="2026-03-10T12:00:00Z", wait="true")
    assert (status, value["usage"]) == (200, 0)
    assert (await ask(world, path, token, time="yesterday"))[0] == 400
    assert (await ask(world, path, None, time="yesterday"))[0] == 401


async def test_nothing_of_another_subject(world: World) -> None:
    listed = await world.call("GET", "/api/v1/subjects/acme/entitlements")
    token = await token_of(world, "globex")
    for ref in (listed[0]["id"], listed[1]["id"], "ai_calls", "sso"):
        status, _ = await ask(world, f"{ENTITLEMENTS}/{ref}/value", token, subject="acme")
        assert status == 404
    status, own = await ask(world, ENTITLEMENTS, token, subject="acme")
    assert status == 200
    assert [(one["featureKey"], one["value"]["balance"]) for one in own] == [("ai_tokens", 70)]
    assert (await ask(world, ENTITLEMENTS, await token_of(world, "nobody")))[1] == []


async def test_a_token_of_some_meters_tells_of_their_features_only(world: World) -> None:
    token = await token_of(world, "acme", allowedMeterSlugs=["calls"])
    listed = (await ask(world, ENTITLEMENTS, token))[1]
    assert [one["featureKey"] for one in listed] == ["ai_calls", "sso"]
    assert (await ask(world, f"{ENTITLEMENTS}/ai_calls/value", token))[0] == 200
    assert (await ask(world, f"{ENTITLEMENTS}/ai_tokens/value", token))[0] == 403
    assert (await ask(world, f"{ENTITLEMENTS}/none/value", token))[0] == 404


async def test_forgeries(world: World) -> None:
    good = await token_of(world, "acme")
    head, claims, signature = good.split(".")
    payload = jwt.decode(good, options={"verify_signature": False})
    other_key = jwt.encode({**payload, "sub": "globex"}, "x" * 40, algorithm="HS256")
    forgeries = [
        None,
        "x",
        f"{head}.{claims}.",
        f"{head}.{claims}.{signature[:-2]}AA",
        other_key,
        f"{other_key.rsplit('.', 1)[0]}.{signature}",
        jwt.encode(payload, "", algorithm="none"),
        jwt.encode({**payload, "exp": payload["exp"] + 9999}, "y" * 80, algorithm="HS512"),
    ]
    for path in (ENTITLEMENTS, f"{ENTITLEMENTS}/ai_tokens/value"):
        for forged in forgeries:
            status, body = await ask(world, path, forged)
            assert (status, body["title"]) == (401, "Unauthorized")


async def test_an_expired_and_a_revoked_token(world: World) -> None:
    token = await token_of(world, "acme", expiresAt="2026-03-10T13:30:00Z")
    assert (await ask(world, ENTITLEMENTS, token))[0] == 200
    now = world.clock.now
    world.clock.now = datetime(2026, 3, 10, 13, 30, tzinfo=UTC)
    assert (await ask(world, ENTITLEMENTS, token))[0] == 401
    world.clock.now = now
    await world.call("POST", "/api/v1/portal/tokens/invalidate", {"subject": "acme"})
    assert (await ask(world, ENTITLEMENTS, token))[0] == 401


async def test_a_browser_may_ask_from_another_origin(world: World) -> None:
    for path in (ENTITLEMENTS, f"{ENTITLEMENTS}/ai_tokens/value"):
        preflight = await world.client.options(
            path, headers={"origin": "https://shop.test", "access-control-request-method": "GET"}
        )
        assert preflight.status_code == 204
        assert preflight.headers["access-control-allow-origin"] == "*"
        assert "Authorization" in preflight.headers["access-control-allow-headers"]
    seller = await world.client.get("/api/v1/entitlements")
    assert "access-control-allow-origin" not in seller.headers
