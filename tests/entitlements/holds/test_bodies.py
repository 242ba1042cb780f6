"""Bodies about holds that are wrong: the answer says what is, and where."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa

from entitlements.holds import service
from entitlements.holds.limits import HoldLimits
from meterline.db.engine import Database
from tests.support.holding import HeldHttp, holding_http

HOLDS = "/subjects/ann/entitlements/tokens/holds"
DEEP = "[" * 100_000 + "]" * 100_000


@pytest_asyncio.fixture
async def api(any_database: Database) -> AsyncIterator[HeldHttp]:
    async with holding_http(any_database) as http:
        await http.on.entitle()
        await http.on.grant(100)
        yield http


def _where(problem: Any) -> str:
    (one,) = problem["extensions"]["validationErrors"]
    assert problem["detail"] == f"{one['where']}: {one['reason']}"
    return str(one["where"])


@pytest.mark.parametrize("field", ["amount", "ttlSeconds", "metadata", "other"])
async def test_a_body_of_any_depth_is_refused(api: HeldHttp, field: str) -> None:
    for path in (
        HOLDS, f"{HOLDS}/a/confirm", f"{HOLDS}/a/release", "/reservations", "/usage-transactions",
        "/credit-rates", "/subjects/ann/credits",
    ):  # fmt: skip
        problem = await api.call("POST", path, f'{{"{field}": {DEEP}}}', 400)
        if path == HOLDS and field in ("amount", "ttlSeconds"):
            assert _where(problem) == "body"


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"amount": 1, "onExcess": "maybe"}, "onExcess"),
        ({"amount": 1, "metadata": {"a": 1}}, "metadata[...]"),
        ({"amount": 1, "metadata": []}, "metadata"),
        ({"amount": 1, "model": 7}, "model"),
        ({"amount": 1, "id": None, "colour": "red"}, "colour"),
        ({"amount": "1"}, "amount"),
        ({"amount": 1, "ttlSeconds": []}, "ttlSeconds"),
        ({}, "amount"),
        ([], "body"),
        ("{", "body"),
        ("\ufeff{}", "body"),
    ],
)
async def test_what_is_wrong_is_named(api: HeldHttp, body: Any, where: str) -> None:
    assert _where(await api.call("POST", HOLDS, body, 400)) == where


async def test_a_time_to_live_has_a_plain_limit(api: HeldHttp) -> None:
    problem = await api.call("POST", HOLDS, {"amount": 1, "ttlSeconds": 3e6}, 400)
    most = f"{HoldLimits().max_ttl_seconds:.0f}"
    assert problem["detail"] == f"ttlSeconds: must be at most {most}; 0 never expires"


@pytest.mark.parametrize("name", ["a/b", "/", "a b", "", "ä", "x" * 256])
async def test_an_id_is_part_of_paths(api: HeldHttp, name: str) -> None:
    assert _where(await api.call("POST", HOLDS, {"amount": 1, "id": name}, 400)) == "id"
    await api.call("POST", "/subjects/ann/credits", {"amount": 10}, 201)
    if name:
        body = {"accountId": "ann", "amount": 1, "id": name}
        assert _where(await api.call("POST", "/reservations", body, 400)) == "id"
        begun = {"userId": "ann", "model": "priced", "transactionId": name}
        problem = await api.call("POST", "/usage-transactions", begun, 400)
        assert _where(problem) == "transactionId"


async def test_an_id_with_a_slash_from_before_is_still_good(
    api: HeldHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr(service.HoldService, "_may_be_id", lambda *_: True)
        made = await api.call("POST", HOLDS, {"amount": 1, "id": "a/b"}, 201)
    assert await api.call("POST", HOLDS, {"amount": 1, "id": "a/b"}, 201) == made
    await api.call("POST", HOLDS, {"amount": 2, "id": "a/b"}, 409)
    assert (await api.call("POST", f"{HOLDS}/a%2Fb/confirm"))["status"] == "confirmed"


async def test_nothing_is_charged_that_no_meter_can_count(api: HeldHttp) -> None:
    await api.call("POST", "/subjects/ann/credits", {"amount": 10}, 201)
    rate = {"model": "gold", "inputRate": 10**20 - 1, "outputRate": 0}
    await api.call("POST", "/credit-rates", rate, 201)
    begun = {"userId": "ann", "model": "gold", "transactionId": "t"}
    tokens = {"inputTokens": 10**15}
    problem = await api.call(
        "POST", "/usage-transactions", {**begun, "provisionalTokens": tokens}, 400
    )
    assert _where(problem) == "provisionalTokens"
    await api.call("POST", "/usage-transactions", begun, 201)
    body: Any = {"success": True, "finalizedTokens": tokens}
    problem = await api.call("POST", "/usage-transactions/t/complete", body, 400)
    assert _where(problem) == "finalizedTokens"
    # What a meter can count is charged, to the last digit.
    body["finalizedTokens"] = {"inputTokens": 10**6}
    done = await api.call("POST", "/usage-transactions/t/complete", body)
    assert done["creditsUsed"] == 10**20 - 1
    await api.settle()
    async with api.on.database.read() as conn:
        assert await conn.scalar(sa.text("SELECT settled FROM holds"))
