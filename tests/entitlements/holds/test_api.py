"""Holds over HTTP."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest_asyncio

from meterline.db.engine import Database
from tests.support.entitlements import exact
from tests.support.holding import HeldHttp, holding_http

HOLDS = "/subjects/ann/entitlements/tokens/holds"


@pytest_asyncio.fixture
async def api(any_database: Database) -> AsyncIterator[HeldHttp]:
    async with holding_http(any_database) as http:
        await http.on.entitle()
        await http.on.grant(100)
        yield http


async def test_a_hold_is_opened_confirmed_and_read(api: HeldHttp) -> None:
    opened = await api.call("POST", HOLDS, {"amount": 40, "id": "a", "metadata": {"k": "v"}}, 201)
    assert opened["status"] == "open"
    assert opened["amount"] == 40
    assert opened["metadata"] == {"k": "v"}
    again = await api.http.post(
        f"/api/v1{HOLDS}", json={"amount": 40, "id": "a", "metadata": {"k": "v"}}
    )
    assert exact(again.text) == opened
    confirmed = await api.call("POST", f"{HOLDS}/a/confirm", '{"amount": 0.000000000000000001}')
    assert confirmed["status"] == "confirmed"
    assert confirmed["confirmedAmount"] == Decimal("0.000000000000000001")
    assert confirmed["releasedAmount"] == Decimal("39.999999999999999999")
    await api.settle()
    assert await api.call("GET", f"{HOLDS}/a") == confirmed
    assert await api.call("POST", f"{HOLDS}/a/confirm", '{"amount": 1e-18}') == confirmed


async def test_more_than_is_available_is_refused_with_figures(api: HeldHttp) -> None:
    await api.call("POST", HOLDS, {"amount": 60}, 201)
    problem = await api.call("POST", HOLDS, {"amount": 41, "id": "b"}, 402)
    assert problem["title"] == "Payment Required"
    said = problem["extensions"]
    assert (said["limitType"], said["limit"], said["current"]) == ("tokens", 100, 60)
    assert (await api.call("GET", f"{HOLDS}/b"))["status"] == "failed"


async def test_a_conflict_names_the_field(api: HeldHttp) -> None:
    await api.call("POST", HOLDS, {"amount": 4, "id": "a"}, 201)
    problem = await api.call("POST", HOLDS, {"amount": 5, "id": "a"}, 409)
    assert problem["extensions"] == {"field": "amount", "holdId": "a", "state": "open"}
    await api.call("POST", f"{HOLDS}/a/release")
    problem = await api.call("POST", f"{HOLDS}/a/confirm", None, 409)
    assert problem["extensions"]["state"] == "released"


async def test_a_listing_goes_on(api: HeldHttp) -> None:
    for number in range(5):
        await api.call("POST", HOLDS, {"amount": 1, "id": f"h{number}"}, 201)
        api.on.clock.advance(1)
    await api.call("POST", f"{HOLDS}/h3/release")
    page = await api.call("GET", f"{HOLDS}?limit=2")
    assert [one["id"] for one in page["items"]] == ["h4", "h3"]
    rest = await api.call("GET", HOLDS, params={"limit": 10, "cursor": page["nextCursor"]})
    assert [one["id"] for one in rest["items"]] == ["h2", "h1", "h0"]
    assert "nextCursor" not in rest
    found = await api.call("GET", f"{HOLDS}?status=released")
    assert [one["id"] for one in found["items"]] == ["h3"]


async def test_values_know_what_is_held(api: HeldHttp) -> None:
    value = "/subjects/ann/entitlements/tokens/value"
    await api.call("POST", HOLDS, {"amount": 40, "id": "a", "ttlSeconds": 10}, 201)
    await api.call("POST", HOLDS, {"amount": 10, "id": "b", "ttlSeconds": 0}, 201)
    api.on.clock.advance(0.001)
    found = await api.call("GET", value)
    assert (found["balance"], found["held"], found["available"]) == (100, 50, 50)
    await api.call("POST", f"{HOLDS}/b/confirm")
    found = await api.call("GET", value)
    assert (found["balance"], found["held"], found["available"]) == (100, 50, 50)
    await api.settle()
    found = await api.call("GET", value)
    assert (found["balance"], found["held"], found["available"]) == (90, 40, 50)
    api.on.clock.advance(10)
    found = await api.call("GET", value)
    assert (found["balance"], found["held"], found["available"]) == (90, 0, 90)


async def test_bodies_that_mean_nothing_are_refused(api: HeldHttp) -> None:
    body: Any
    for body in (
        {}, {"amount": 0}, {"amount": -1}, {"amount": "1"}, {"amount": 1, "colour": "red"},
        {"amount": 1, "id": "a b"}, {"amount": 1, "id": ""}, {"amount": 1, "onExcess": "maybe"},
        {"amount": 1, "ttlSeconds": -1}, {"amount": 1, "ttlSeconds": 1e9}, [], "{",
        {"amount": 1, "metadata": {"a": "\x00"}}, '{"amount": 1.0000000000000000001}',
    ):  # fmt: skip
        await api.call("POST", HOLDS, body, 400)
    await api.call("POST", HOLDS, {"amount": 1, "id": "a"}, 201)
    for body in ({"amount": -1}, {"sum": 1}, {"amount": True}):
        await api.call("POST", f"{HOLDS}/a/confirm", body, 400)
    await api.call("POST", f"{HOLDS}/a/release", {"amount": 1}, 400)
    response = await api.http.post(
        f"/api/v1{HOLDS}", content="amount=1", headers={"content-type": "text/plain"}
    )
    assert response.status_code == 415


async def test_only_what_is_there_can_be_held(api: HeldHttp) -> None:
    await api.call("POST", "/subjects/bob/entitlements/tokens/holds", {"amount": 1}, 404)
    await api.call("POST", "/subjects/ann/entitlements/other/holds", {"amount": 1}, 404)
    await api.call("POST", f"{HOLDS}/nothing/confirm", None, 404)
    await api.call("GET", f"{HOLDS}/nothing", None, 404)
    await api.call("POST", HOLDS, {"amount": 1, "id": "a"}, 201)
    await api.call("POST", "/subjects/bob/entitlements/tokens/holds/a/confirm", None, 404)


async def test_an_id_names_the_entitlement_too_and_subjects_may_have_slashes(api: HeldHttp) -> None:
    await api.on.entitle("a/b")
    await api.on.grant(10, "a/b")
    (one,) = await api.call("GET", "/subjects/ann/entitlements")
    path = f"/subjects/ann/entitlements/{one['id']}/holds"
    assert (await api.call("POST", path, {"amount": 1}, 201))["featureKey"] == "tokens"
    # Percent-encoded, a slash is part of a name.
    for subject, name in (("a/b", "one"), ("a%2Fb", "two")):
        path = f"/subjects/{subject}/entitlements/tokens/holds"
        made = await api.call("POST", path, {"amount": 1, "id": name}, 201)
        assert made["subjectKey"] == "a/b"
        released = await api.call("POST", f"{path}/{name}/release")
        assert (released["id"], released["status"]) == (name, "released")


async def test_a_key_answers_again_byte_for_byte(api: HeldHttp) -> None:
    headers = {"idempotency-key": "k1"}
    first = await api.http.post(f"/api/v1{HOLDS}", json={"amount": 30}, headers=headers)
    assert first.status_code == 201
    api.on.clock.advance(3600)
    again = await api.http.post(f"/api/v1{HOLDS}", json={"amount": 30}, headers=headers)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["idempotent-replayed"] == "true"
    other = await api.http.post(f"/api/v1{HOLDS}", json={"amount": 31}, headers=headers)
    assert other.status_code == 409
    assert (await api.on.standing())[0] == "30"
