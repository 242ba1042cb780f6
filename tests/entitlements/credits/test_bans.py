"""A banned subject begins nothing new, and ends what it has begun."""

from tests.support.holding import HandBans, HeldHttp

CREDITS = "/subjects/ann/credits"
RESERVED = {"accountId": "ann", "amount": 10}
STARTED = {"userId": "ann", "model": "priced", "provisionalTokens": {"inputTokens": 5000}}


def _banned(api: HeldHttp) -> set[str]:
    bans = api.kit.parts.bans
    assert isinstance(bans, HandBans)
    return bans.subjects


async def test_nothing_new_is_begun(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    _banned(api).add("ann")
    await api.call("POST", "/reservations", RESERVED, 403)
    await api.call("POST", "/reservations", {**RESERVED, "id": "r"}, 403)
    await api.call("POST", "/usage-transactions", STARTED, 403)
    await api.call("POST", "/usage-transactions", {**STARTED, "transactionId": "t"}, 403)
    await api.call("POST", "/reservations", {**RESERVED, "accountId": "bob"}, 402)
    assert (await api.call("GET", CREDITS))["available"] == 100
    # What was refused has taken no id.
    _banned(api).clear()
    await api.call("POST", "/reservations", {**RESERVED, "id": "r"}, 201)


async def test_what_is_open_goes_on(api: HeldHttp) -> None:
    await api.call("POST", CREDITS, {"amount": 100}, 201)
    reserved = await api.call("POST", "/reservations", {**RESERVED, "id": "r"}, 201)
    await api.call("POST", "/reservations", {**RESERVED, "id": "back"}, 201)
    begun = {**STARTED, "transactionId": "t"}
    started = await api.call("POST", "/usage-transactions", begun, 201)
    _banned(api).add("ann")
    assert await api.call("POST", "/reservations", {**RESERVED, "id": "r"}, 201) == reserved
    assert await api.call("POST", "/usage-transactions", begun, 201) == started
    await api.call("POST", "/reservations/r/confirm")
    await api.call("POST", "/reservations/back/release")
    await api.call("POST", "/usage-transactions/t/complete", {"success": True})
    assert (await api.call("GET", CREDITS))["balance"] == 80
