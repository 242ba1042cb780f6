"""Grants of credits: given once, and answered."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from meterline.db.engine import Database
from meterline.kernel.errors import UnavailableError
from tests.support.holding import HeldHttp, holding_http

CREDITS = "/subjects/ann/credits"


@pytest_asyncio.fixture
async def api(any_database: Database) -> AsyncIterator[HeldHttp]:
    async with holding_http(any_database) as http:
        yield http


async def test_a_key_whose_answer_was_lost_gives_the_same_again_and_nothing_else(
    api: HeldHttp,
) -> None:
    body = {
        "amount": 100, "priority": 3, "expiresAt": "2026-03-05T12:00:00Z", "reason": "welcome",
        "metadata": {"a": "b"},
    }  # fmt: skip
    headers = {"idempotency-key": "pay-1"}

    async def lost() -> None:
        async with api.on.database.transaction() as conn:
            await conn.exec_driver_sql("DELETE FROM idempotent_requests")

    given = await api.call("POST", CREDITS, body, 201, headers={**headers})
    for field, other in (
        ("amount", 50), ("priority", 1), ("expiresAt", None), ("reason", "bye"), ("metadata", {}),
    ):  # fmt: skip
        await lost()
        problem = await api.call("POST", CREDITS, {**body, field: other}, 409, headers={**headers})
        assert problem["extensions"] == {"field": field, "grantId": given["grantId"]}
    await lost()
    again = await api.call("POST", CREDITS, body, 201, headers={**headers})
    assert (again["grantId"], again["amount"], again["balance"]) == (given["grantId"], 100, 100)


async def test_a_transaction_that_was_confirmed_as_a_hold_is_completed(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    start = {"userId": "ann", "model": "priced", "provisionalTokens": {"inputTokens": 1000}}
    for name in ("confirmed", "released"):
        await api.call("POST", "/usage-transactions", {**start, "transactionId": name}, 201)
    holds = "/subjects/ann/entitlements/credits/holds"
    await api.call("POST", f"{holds}/confirmed/confirm")
    await api.call("POST", f"{holds}/released/release")
    for status, name in (("completed", "confirmed"), ("failed", "released")):
        found = await api.call("GET", f"/usage-transactions?status={status}")
        assert [one["transactionId"] for one in found["items"]] == [name]
        assert (await api.call("GET", f"/usage-transactions/{name}"))["status"] == status


async def test_credits_whose_entitlement_was_deleted_are_made_anew(api: HeldHttp) -> None:
    reserved = {"accountId": "ann", "amount": 10}
    start = {"userId": "ann", "model": "priced", "provisionalTokens": {"inputTokens": 1000}}

    async def delete() -> None:
        api.on.clock.advance(1)
        await api.call("DELETE", "/subjects/ann/entitlements/credits", None, 204)
        api.on.clock.advance(1)

    await api.call("POST", CREDITS, {"amount": 100}, 201)
    await api.call("POST", "/reservations", reserved, 201)
    await delete()
    await api.call("POST", "/reservations", reserved, 402)
    await delete()
    assert not (await api.call("POST", "/usage-transactions", start, 201))["continue"]
    await delete()
    given = await api.call("POST", CREDITS, {"amount": 100}, 201)
    assert given["balance"] == 100


async def test_a_grant_is_answered_though_nobody_can_tell_the_history(
    api: HeldHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    await api.call("POST", "/reservations", {"accountId": "ann", "amount": 30, "id": "r"}, 201)
    await api.call("POST", "/reservations", {"accountId": "ann", "amount": 5}, 201)
    await api.call("POST", "/reservations/r/confirm", {"amount": 10})
    api.on.live.blind = True
    given = await api.call("POST", CREDITS, {"amount": 1}, 201)
    # Calculated.
    assert (given["balance"], given["held"], given["available"]) == (91, 5, 86)
    assert given["entryCount"] == 2
    await api.call("GET", CREDITS, None, 503)

    async def away(*_: object) -> Any:
        raise UnavailableError("the event store could not say what was used")

    monkeypatch.setattr(api.on.meters, "read", away)
    api.on.clock.advance(1)
    given = await api.call("POST", CREDITS, {"amount": 1}, 201)
    # What the history said last.
    assert (given["balance"], given["held"], given["available"]) == (90, 5, 85)
    monkeypatch.undo()
    api.on.live.blind = False
    told = await api.call("GET", CREDITS)
    assert (told["balance"], [one["amount"] for one in told["items"]]) == (92, [1, 1, -10, 100])
