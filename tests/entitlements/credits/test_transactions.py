"""Usage transactions that are sent again, and those that cannot begin."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from entitlements.credits.rates import Tokens
from entitlements.credits.transactions import Start
from meterline.server.kit_credits import running_credits
from tests.support.holding import NAMESPACE, HeldHttp

CREDITS = "/subjects/ann/credits"
START = {
    "userId": "ann",
    "model": "priced",
    "provisionalTokens": {"inputTokens": 4000, "outputTokens": 1000},
}
MINE = {"model": "mine", "inputRate": 1000, "outputRate": 3000}


async def _told_again(api: HeldHttp, message: str, **told: object) -> None:
    """What a start that is repeated is told."""
    again = await api.call("POST", "/usage-transactions", {**START, "transactionId": "t"}, 201)
    assert again["transactionId"] == "t"
    assert (again["continue"], again["message"]) == (message == "started", message)
    assert {name: again[name] for name in told} == told


async def test_a_start_that_is_repeated_is_told_what_became_of_it(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    body = {**START, "transactionId": "t"}
    first = await api.call("POST", "/usage-transactions", body, 201)
    assert await api.call("POST", "/usage-transactions", body, 201) == first
    done = {"success": True, "finalizedTokens": {"inputTokens": 500}}
    await api.call("POST", "/usage-transactions/t/complete", done)
    await _told_again(api, "completed already", creditsUsed=1, balance=99)


@pytest.mark.parametrize(
    ("closing", "message"),
    [
        ({"success": False}, "completed already, without success"),
        (
            {"success": False, "finalizedTokens": {"inputTokens": 5}},
            "completed already, without success",
        ),
        (None, "expired: use a new id"),
    ],
)
async def test_nobody_goes_on_with_what_has_ended(
    api: HeldHttp, closing: object, message: str
) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    await api.call("POST", "/usage-transactions", {**START, "transactionId": "t"}, 201)
    if closing is not None:
        await api.call("POST", "/usage-transactions/t/complete", closing)
    api.on.clock.advance(901)
    await _told_again(api, message)


async def test_the_balance_after_an_expiry_is_that_of_now(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    await api.call("POST", "/usage-transactions", {**START, "transactionId": "t"}, 201)
    api.on.clock.advance(901)
    await _told_again(api, "expired: use a new id", balance=100)
    await api.kit.holds.expire()
    await _told_again(api, "expired: use a new id", balance=100)
    await api.call("DELETE", "/subjects/ann/entitlements/credits", None, 204)
    await _told_again(api, "expired: use a new id", balance=0)


async def test_what_was_refused_stays_so(api: HeldHttp) -> None:
    await api.call("POST", "/usage-transactions", {**START, "transactionId": "t"}, 201)
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    await _told_again(api, "insufficient credits", creditsUsed=0)


async def _change_rate(api: HeldHttp) -> None:
    await api.call("PUT", "/credit-rates/mine", {**MINE, "inputRate": 9000})


async def _delete_rate(api: HeldHttp) -> None:
    await api.call("DELETE", "/credit-rates/mine", None, 204)


@pytest.mark.parametrize("change", [_change_rate, _delete_rate])
async def test_a_repeated_request_is_the_same_whatever_became_of_the_rate(
    api: HeldHttp, change: Callable[[HeldHttp], Awaitable[None]]
) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    await api.call("POST", "/credit-rates", MINE, 201)
    body = {**START, "model": "mine", "transactionId": "t", "metadata": {"job": "7"}}
    first = await api.call("POST", "/usage-transactions", body, 201)
    assert (first["creditsUsed"], first["balance"]) == (7, 93)
    await change(api)
    assert await api.call("POST", "/usage-transactions", body, 201) == first
    for field, other in (
        ("userId", "bob"),
        ("model", "priced"),
        ("provisionalTokens", {"inputTokens": 1}),
        ("featureIdentifier", "chat"),
        ("metadata", {}),
    ):
        problem = await api.call("POST", "/usage-transactions", {**body, field: other}, 409)
        assert problem["extensions"]["field"] == field
    await api.call("PUT", "/credit-rates/mine", MINE)
    closing = {"success": True, "finalizedTokens": {"inputTokens": 4000}}
    done = await api.call("POST", "/usage-transactions/t/complete", closing)
    await change(api)
    assert await api.call("POST", "/usage-transactions/t/complete", closing) == done


async def test_one_of_two_that_start_at_once_wins_at_whatever_rate(
    api: HeldHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find that the id is free, and the rate changes before the other one asks for it."""
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    await api.call("POST", "/credit-rates", MINE, 201)
    body = {**START, "model": "mine", "transactionId": "t"}
    service, quicker = api.kit.transactions, Start("ann", "mine", Tokens(4000, 1000), id="t")
    credits = api.kit.rates.credits

    async def slow(*asked: Any) -> Decimal:
        found = await credits(*asked)
        monkeypatch.setattr(api.kit.rates, "credits", credits)
        await _change_rate(api)
        await service.start(NAMESPACE, quicker)
        return found

    monkeypatch.setattr(api.kit.rates, "credits", slow)
    started = await api.call("POST", "/usage-transactions", body, 201)
    assert (started["continue"], started["creditsUsed"]) == (True, 39)


@pytest.mark.parametrize("success", [True, False])
async def test_one_of_two_that_complete_at_once_wins_at_whatever_rate(
    api: HeldHttp, monkeypatch: pytest.MonkeyPatch, success: bool
) -> None:
    """Both find that it is open, and the rate changes before the other one closes it."""
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    await api.call("POST", "/credit-rates", MINE, 201)
    body = {**START, "model": "mine", "transactionId": "t"}
    await api.call("POST", "/usage-transactions", body, 201)
    credits = api.kit.rates.credits

    async def slow(*asked: Any) -> Decimal:
        found = await credits(*asked)
        monkeypatch.setattr(api.kit.rates, "credits", credits)
        await _change_rate(api)
        final = Tokens(1000)
        await api.kit.transactions.complete(NAMESPACE, "t", success=success, finalized=final)
        return found

    monkeypatch.setattr(api.kit.rates, "credits", slow)
    closing = {"success": True, "finalizedTokens": {"inputTokens": 1000}}
    status = 200 if success else 409
    told = await api.call("POST", "/usage-transactions/t/complete", closing, status)
    assert told["creditsUsed"] == 9 if success else told["extensions"]["field"] == "success"


async def test_a_start_is_the_same_after_a_restart_with_another_time_to_live(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    wanted = Start("ann", "priced", Tokens(4000, 1000), id="t")
    first = await api.kit.transactions.start(NAMESPACE, wanted)
    options = replace(api.kit.parts.credits, transaction_ttl_seconds=Decimal(60))
    async with running_credits(replace(api.kit.parts, credits=options), work=False) as kit:
        again = await kit.transactions.start(NAMESPACE, wanted)
    assert again == first


async def test_what_has_expired_is_told_so_though_its_rate_is_gone(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    await api.call("POST", "/credit-rates", MINE, 201)
    body = {**START, "model": "mine", "transactionId": "t"}
    await api.call("POST", "/usage-transactions", body, 201)
    await _delete_rate(api)
    api.on.clock.advance(901)
    closing = {"success": True, "finalizedTokens": {"inputTokens": 1}}
    problem = await api.call("POST", "/usage-transactions/t/complete", closing, 409)
    assert (problem["extensions"]["field"], problem["extensions"]["state"]) == ("state", "expired")


async def test_an_id_of_a_reservation_is_no_transaction(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    await api.call("POST", "/reservations", {"accountId": "ann", "amount": 10, "id": "t"}, 201)
    problem = await api.call("POST", "/usage-transactions", {**START, "transactionId": "t"}, 409)
    assert problem["extensions"]["field"] == "transactionId"


async def test_a_model_without_a_price_is_refused_before_the_call_is_made(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    body = {"userId": "ann", "model": "mine"}
    problem = await api.call("POST", "/usage-transactions", body, 400)
    assert problem["extensions"]["validationErrors"][0]["where"] == "model"
    assert (await api.call("GET", "/usage-transactions"))["items"] == []
    await api.call("POST", "/credit-rates", MINE, 201)
    assert (await api.call("POST", "/usage-transactions", body, 201))["continue"]


async def test_cached_tokens_are_part_of_the_input(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    more = {"inputTokens": 1000, "cachedTokens": 1001}
    body = {**START, "transactionId": "t"}
    problem = await api.call(
        "POST", "/usage-transactions", {**body, "provisionalTokens": more}, 400
    )
    found = [one["where"] for one in problem["extensions"]["validationErrors"]]
    assert found == ["provisionalTokens.cachedTokens"]
    await api.call("POST", "/usage-transactions", body, 201)
    closing = {"success": True, "finalizedTokens": more}
    problem = await api.call("POST", "/usage-transactions/t/complete", closing, 400)
    found = [one["where"] for one in problem["extensions"]["validationErrors"]]
    assert found == ["finalizedTokens.cachedTokens"]
    closing = {"success": True, "finalizedTokens": {"inputTokens": 1000, "cachedTokens": 1000}}
    done = await api.call("POST", "/usage-transactions/t/complete", closing)
    assert done["creditsUsed"] == 2
