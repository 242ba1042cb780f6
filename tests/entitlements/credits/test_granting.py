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
