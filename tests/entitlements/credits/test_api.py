"""Credits, reservations, usage transactions and rates over HTTP."""

from decimal import Decimal
from typing import Any

from entitlements.balance.exact import total
from entitlements.credits.service import credits_entitlement
from tests.support.holding import NAMESPACE, HeldHttp

CREDITS = "/subjects/ann/credits"
START = {
    "userId": "ann",
    "model": "priced",
    "provisionalTokens": {"inputTokens": 4000, "outputTokens": 1000},
}


async def _history(api: HeldHttp) -> Any:
    told = await api.call("GET", CREDITS)
    assert total(one["amount"] for one in told["items"]) == told["balance"]
    balance = told["balance"]
    for one in told["items"]:
        assert one["balance"] == balance
        balance -= one["amount"]
    return told


async def test_credits_are_given_and_told(api: HeldHttp) -> None:
    given = await api.call("POST", CREDITS, {"amount": 100, "reason": "welcome"}, 201)
    assert (given["balance"], given["available"], given["entryCount"]) == (100, 100, 1)
    api.on.clock.advance(1)
    body = {"amount": 0.5, "expiresAt": "2026-03-01T13:00:00Z", "priority": 0}
    await api.call("POST", CREDITS, body, 201)
    told = await _history(api)
    assert [(one["kind"], one["amount"]) for one in told["items"]] == [
        ("grant", Decimal("0.5")),
        ("grant", 100),
    ]
    api.on.clock.advance(3600)
    told = await _history(api)
    assert (told["items"][0]["kind"], told["items"][0]["amount"]) == ("expiry", Decimal("-0.5"))
    assert told["balance"] == 100
    await api.call("GET", "/subjects/bob/credits", None, 404)


async def test_credits_outlive_the_month(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    await api.call("POST", "/reservations", {"accountId": "ann", "amount": 30, "id": "r"}, 201)
    await api.call("POST", "/reservations/r/confirm")
    await api.settle()
    for _ in range(3):
        api.on.clock.advance(40 * 86_400)
        assert (await _history(api))["balance"] == 70


async def test_a_reservation_is_confirmed(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    body = {"accountId": "ann", "amount": 30, "id": "r1", "description": "a picture"}
    made = await api.call("POST", "/reservations", body, 201)
    assert (made["transactionId"], made["accountId"]) == ("r1", "ann")
    assert (made["status"], made["description"]) == ("open", "a picture")
    told = await _history(api)
    assert (told["balance"], told["held"], told["available"]) == (100, 30, 70)
    done = await api.call("POST", "/reservations/r1/confirm", {"amount": 10})
    assert (done["status"], done["confirmedAmount"], done["releasedAmount"]) == (
        "confirmed",
        10,
        20,
    )
    told = await _history(api)
    assert (told["balance"], told["held"], told["available"]) == (90, 0, 90)
    assert (told["items"][0]["kind"], told["items"][0]["reference"]) == ("usage", "hold:r1")
    await api.settle()
    assert (await _history(api))["items"] == told["items"]
    assert await api.call("GET", "/reservations/r1") == done
    await api.call("POST", "/reservations", {"accountId": "ann", "amount": 90.1}, 402)
    await api.call("POST", "/reservations", {"accountId": "ann", "amount": 90, "id": "r2"}, 201)
    await api.call("POST", "/reservations/r2/release")
    await api.call("POST", "/reservations/r1/release", {}, 409)
    page = await api.call("GET", "/reservations?accountId=ann&limit=1")
    assert [one["transactionId"] for one in page["items"]] in (["r1"], ["r2"])
    assert (await api.call("GET", "/reservations?accountId=bob"))["items"] == []
    await api.call("GET", "/usage-transactions/r1", None, 404)


async def test_a_transaction_is_completed(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    started = await api.call("POST", "/usage-transactions", {**START, "transactionId": "t"}, 201)
    # 5,000 tokens at a dollar a million, marked up twice, a thousand credits a dollar.
    expected = {"transactionId": "t", "continue": True, "balance": 90, "creditsUsed": 10}
    assert started == {**expected, "message": "started"}
    body = {"success": True, "finalizedTokens": {"inputTokens": 1000, "outputTokens": 500}}
    done = await api.call("POST", "/usage-transactions/t/complete", body)
    assert done == {
        "transactionId": "t", "creditsUsed": 3, "balance": 97, "balanceAdjustment": 7,
    }  # fmt: skip
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    assert await api.call("POST", "/usage-transactions/t/complete", body) == done
    other = {**body, "success": False}
    problem = await api.call("POST", "/usage-transactions/t/complete", other, 409)
    assert problem["extensions"]["field"] == "success"
    one = await api.call("GET", "/usage-transactions/t")
    assert (one["status"], one["creditsUsed"], one["provisionalCredits"]) == ("completed", 3, 10)
    assert one["finalizedTokens"] == {"inputTokens": 1000, "outputTokens": 500}


async def test_what_was_granted_comes_before_what_was_used_of_it(api: HeldHttp) -> None:
    """A plan grants without a look at the history; the first who comes is a transaction."""
    await api.kit.parts.builtins.ensure(NAMESPACE)
    await api.on.entitlements.create(NAMESPACE, "ann", credits_entitlement())
    await api.on.grant(100, "ann", "credits")
    api.on.clock.advance(1)
    await api.call("POST", "/usage-transactions", {**START, "transactionId": "t"}, 201)
    await api.call("POST", "/usage-transactions/t/complete", {"success": True})
    told = await _history(api)
    kinds = [(one["kind"], one["amount"], one["balance"]) for one in reversed(told["items"])]
    assert kinds == [("grant", 100, 100), ("usage", -10, 90)]


async def test_more_than_was_held_is_charged(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 10}, 201)
    await api.call("POST", "/usage-transactions", {**START, "transactionId": "t"}, 201)
    body = {"success": True, "finalizedTokens": {"inputTokens": 10_000}}
    done = await api.call("POST", "/usage-transactions/t/complete", body)
    assert (done["creditsUsed"], done["balance"], done["balanceAdjustment"]) == (20, -10, -10)
    await api.settle()
    assert (await _history(api))["balance"] == -10
    refused = await api.call("POST", "/usage-transactions", START, 201)
    assert (refused["continue"], refused["message"]) == (False, "insufficient credits")
    nothing = {"userId": "ann", "model": "priced"}
    assert not (await api.call("POST", "/usage-transactions", nothing, 201))["continue"]
    await api.call("POST", CREDITS, {"amount": 10.5}, 201)
    assert (await api.call("POST", "/usage-transactions", nothing, 201))["continue"]


async def test_failures_and_expiries_give_the_hold_back(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    for name in ("failed", "lost", "charged"):
        await api.call("POST", "/usage-transactions", {**START, "transactionId": name}, 201)
    done = await api.call("POST", "/usage-transactions/failed/complete", {"success": False})
    assert (done["creditsUsed"], done["balanceAdjustment"]) == (0, 10)
    body = {"success": False, "finalizedTokens": {"inputTokens": 500}}
    done = await api.call("POST", "/usage-transactions/charged/complete", body)
    assert (done["creditsUsed"], done["balanceAdjustment"]) == (1, 9)
    assert (await _history(api))["available"] == 89
    api.on.clock.advance(900)
    assert (await _history(api))["available"] == 99
    await api.call("POST", "/usage-transactions/lost/complete", {"success": True}, 409)
    for status, names in (
        ("expired", {"lost"}), ("failed", {"failed", "charged"}), ("completed", set()),
        ("started", set()), ("refused", set()),
    ):  # fmt: skip
        found = await api.call("GET", f"/usage-transactions?status={status}&userId=ann")
        assert {one["transactionId"] for one in found["items"]} == names, status
        assert {one["status"] for one in found["items"]} <= {status}


async def test_a_rate_wins_over_the_price(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    unpriced = {**START, "model": "mine"}
    problem = await api.call("POST", "/usage-transactions", unpriced, 400)
    assert problem["extensions"]["validationErrors"][0]["where"] == "model"
    rate = {"model": "mine", "inputRate": 1000, "outputRate": 3000, "cachedRate": 100}
    assert await api.call("POST", "/credit-rates", rate, 201) == rate
    tokens = {"inputTokens": 3000, "outputTokens": 1000, "cachedTokens": 2000}
    started = await api.call(
        "POST", "/usage-transactions", {**unpriced, "provisionalTokens": tokens}, 201
    )
    assert started["creditsUsed"] == Decimal("4.2")
    await api.call("PUT", "/credit-rates/mine", {**rate, "inputRate": 0})
    assert (await api.call("GET", "/credit-rates/mine"))["inputRate"] == 0
    assert len((await api.call("GET", "/credit-rates"))["items"]) == 1
    await api.call("DELETE", "/credit-rates/mine", None, 204)
    await api.call("GET", "/credit-rates/mine", None, 404)


async def test_a_key_gives_credits_once(api: HeldHttp) -> None:
    headers = {"idempotency-key": "pay-1"}
    first = await api.http.post(f"/api/v1{CREDITS}", json={"amount": 5}, headers=headers)
    again = await api.http.post(f"/api/v1{CREDITS}", json={"amount": 5}, headers=headers)
    assert first.content == again.content
    # The answer was lost with the server that gave it.
    async with api.on.database.transaction() as conn:
        await conn.exec_driver_sql("DELETE FROM idempotent_requests")
    again = await api.http.post(f"/api/v1{CREDITS}", json={"amount": 5}, headers=headers)
    assert again.status_code == 201
    assert (await _history(api))["balance"] == 5


async def test_the_history_pages(api: HeldHttp) -> None:
    for _ in range(5):
        await api.call("POST", CREDITS, {"amount": 1}, 201)
        api.on.clock.advance(1)
    page = await api.call("GET", f"{CREDITS}?limit=3")
    rest = await api.call("GET", CREDITS, params={"cursor": page["nextCursor"]})
    numbers = [one["number"] for one in [*page["items"], *rest["items"]]]
    assert numbers == [5, 4, 3, 2, 1]
