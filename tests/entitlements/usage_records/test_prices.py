"""`/api/v1/prices`, `/api/v1/models` and `/api/v1/cost`."""

from decimal import Decimal
from typing import Any

import pytest

from tests.entitlements.usage_records.build import Kit

OWN = {
    "model": "in-house-*",
    "provider": "Acme",
    "validFrom": "2026-01-01T00:00:00Z",
    "validUntil": "2027-01-01T00:00:00Z",
    "rates": {
        "inputTokens": 3,
        "cachedTokens": "0.000000000000000001",
        "outputTokens": {"price": 15, "tiers": [{"above": 200_000, "price": 22.5}]},
        "audioSeconds": {"price": "0.006", "per": 60},
    },
    "note": "contract 7",
}


async def cost(kit: Kit, status: int = 200, **fields: Any) -> Any:
    return await kit.call("POST", "/cost", {"modelId": "gpt-4o", **fields}, status)


async def test_prices_are_made_listed_changed_and_forgotten(any_kit: Kit) -> None:
    made = await any_kit.call("POST", "/prices", OWN, 201)
    assert made["provider"] == "acme" and made["note"] == "contract 7"
    assert made["rates"]["cachedTokens"] == {"price": Decimal("1e-18"), "per": 1_000_000}
    assert made["rates"]["outputTokens"]["tiers"] == [{"above": 200_000, "price": Decimal("22.5")}]
    assert made["rates"]["audioSeconds"] == {"price": Decimal("0.006"), "per": 60}
    path = f"/prices/{made['id']}"
    assert await any_kit.call("GET", path) == made
    assert await any_kit.call("GET", "/prices") == {"items": [made]}

    usage: dict[str, Any] = {"modelId": "in-house-7b", "provider": "acme", "inputTokens": 1_000_000}
    assert (await cost(any_kit, **usage))["costUsd"] == 3
    assert (await cost(any_kit, **{**usage, "provider": "other"}))["priced"] == "unpriced"
    assert (await cost(any_kit, **usage, time="2025-12-31T23:59:59Z"))["priced"] == "unpriced"
    assert (await cost(any_kit, **usage, time="2027-01-01T00:00:00Z"))["priced"] == "unpriced"

    changed = {"model": "in-house-*", "rates": {"inputTokens": 4}}
    any_kit.clock.advance(1)
    after = await any_kit.call("PUT", path, changed)
    assert (after["id"], after["createdAt"]) == (made["id"], made["createdAt"])
    assert after["updatedAt"] > made["updatedAt"] and "provider" not in after
    assert (await cost(any_kit, **{**usage, "provider": "other"}))["costUsd"] == 4

    await any_kit.call("DELETE", path, None, 204)
    await any_kit.call("DELETE", path, None, 404)
    await any_kit.call("GET", path, None, 404)
    await any_kit.call("PUT", path, changed, 404)
    assert (await cost(any_kit, **usage))["priced"] == "unpriced"


async def test_prices_of_namespaces_are_apart(any_kit: Kit) -> None:
    made = await any_kit.call("POST", "/prices", OWN, 201, headers={"authorization": "a"})
    await any_kit.call("GET", f"/prices/{made['id']}", None, 404)
    assert await any_kit.call("GET", "/prices") == {"items": []}


async def test_another_process_sees_a_price_within_a_moment(any_kit: Kit) -> None:
    from entitlements.usage_records.prices import PriceService, PriceSpec
    from tests.pricing.build import rates

    assert (await cost(any_kit, modelId="mine", inputTokens=1))["priced"] == "unpriced"
    other = PriceService(any_kit.prices._database, any_kit.clock)
    await other.create("default", PriceSpec("mine", rates(input_tokens=1)))
    assert (await cost(any_kit, modelId="mine", inputTokens=1))["priced"] == "unpriced"
    any_kit.clock.advance(1)
    assert (await cost(any_kit, modelId="mine", inputTokens=1))["priced"] == "override"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"rates": {}}, "body.rates"),
        ({"rates": {"inputTokens": -1}}, "body.rates.inputTokens"),
        ({"rates": {"inputTokens": "dear"}}, "body.rates.inputTokens"),
        ({"rates": {"inputTokens": True}}, "body.rates.inputTokens"),
        ({"rates": {"inputTokens": 1_000_000}}, "body.rates.inputTokens"),
        ({"rates": {"inputTokens": "1e-19"}}, "body.rates.inputTokens"),
        ({"rates": {"input_tokens": 1}}, "rates.input_tokens"),
        ({"rates": {"seconds": 1}}, "rates.seconds"),
        ({"rates": {"inputTokens": {"price": 1, "per": 0}}}, "body.rates.inputTokens"),
        ({"rates": {"inputTokens": {"price": 1, "tiers": [
            {"above": 5, "price": 1}, {"above": 5, "price": 2}]}}}, "rates.inputTokens.tiers"),
        ({"model": ""}, "body.model"),
        ({"model": "  "}, "body.model"),
        ({"model": 5.5}, "body.model"),
        ({"provider": " "}, "body.provider"),
        ({"model": "*a*b*c*"}, "model"),
        ({"validUntil": "2026-01-01T00:00:00Z"}, "validUntil"),
        ({"price": 1}, "body.price"),
    ],
)  # fmt: skip
async def test_wrong_prices_are_refused(kit: Kit, change: dict[str, Any], where: str) -> None:
    found, reason = await kit.refused("/prices", {**OWN, **change})
    assert found.startswith(where) and reason


async def test_an_estimate_says_how_it_comes_about(kit: Kit) -> None:
    told = await cost(kit, inputTokens=1_000, cachedTokens=400, outputTokens=50)
    assert told["costUsd"] == Decimal("0.0025") and told["priced"] == "catalogue"
    assert told["billed"] == {"inputTokens": 600, "cachedTokens": 400, "outputTokens": 50}
    assert told["price"]["rates"]["cachedTokens"]["price"] == Decimal("1.25")
    flex = await cost(kit, modelId="o3", inputTokens=1_000_000, serviceTier="flex")
    assert flex["costUsd"] == 1
    assert kit.store.events == []


async def test_an_estimate_without_a_price_says_so(kit: Kit) -> None:
    told = await cost(kit, modelId="tts-1", provider="openai", audioDurationSeconds=5)
    assert told["costUsd"] is None and told["priced"] == "unpriced"
    assert "audioSeconds" in told["unpricedReason"] and "price" not in told
    await cost(kit, 400, modelId="gpt-4o")
    await cost(kit, 400, modelId="  ", inputTokens=1)


async def test_models_with_their_prices(kit: Kit) -> None:
    answer = await kit.call("GET", "/models", params={"provider": "openai", "modelId": "gpt-4o"})
    models = {one["modelId"]: one for one in answer["items"]}
    assert models["gpt-4o"]["rates"]["inputTokens"]["price"] == Decimal("2.5")
    assert all(
        one["provider"] == "openai" and "gpt-4o" in one["modelId"] for one in models.values()
    )
    assert answer["catalogue"].startswith("genai-prices") and answer["nextCursor"] is None
    await kit.call("POST", "/prices", {"model": "gpt-4o", "rates": {"inputTokens": 9}}, 201)
    for own, price, state in (("true", 9, "override"), ("false", Decimal("2.5"), "catalogue")):
        params = {"provider": "openai", "modelId": "gpt-4o", "own": own}
        answer = await kit.call("GET", "/models", params=params)
        model = next(one for one in answer["items"] if one["modelId"] == "gpt-4o")
        assert model["rates"]["inputTokens"]["price"] == price and model["priced"] == state
    assert (await kit.call("GET", "/models", params={"provider": "acme"}))["items"] == []


async def test_models_that_have_only_an_own_price(kit: Kit) -> None:
    def own(model: str, **more: Any) -> dict[str, Any]:
        return {"model": model, "rates": {"inputTokens": 1}, **more}

    for body in (
        own("in-house"), own("in-house-*"), own("theirs", provider="acme"), own("gpt-4o"),
        own("old", validUntil="2020-01-01T00:00:00Z"),
    ):  # fmt: skip
        await kit.call("POST", "/prices", body, 201)

    async def listed(**params: str) -> list[tuple[str, str | None]]:
        items = (await kit.call("GET", "/models", params={"limit": "5000", **params}))["items"]
        return [
            (one["modelId"], one.get("provider")) for one in items if one["priced"] != "catalogue"
        ]

    found = await listed()
    assert found[-2:] == [("in-house", None), ("theirs", "acme")]
    assert all("gpt-4o" in model for model, _ in found[:-2])
    assert await listed(provider="acme") == [("theirs", "acme")]
    assert await listed(modelId="in-h") == [("in-house", None)]
    assert await listed(own="false") == []


async def test_models_come_in_pages(kit: Kit) -> None:
    seen: list[tuple[str, str]] = []
    cursor = None
    while True:
        params = {"limit": "900", **({"cursor": cursor} if cursor else {})}
        page = await kit.call("GET", "/models", params=params)
        seen += [(one["provider"], one["modelId"]) for one in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) > 2_000


async def test_there_are_only_so_many_prices(tmp_path: Any) -> None:
    from tests.entitlements.usage_records.build import running_kit
    from tests.support.database import migrated

    async with migrated(tmp_path) as database, running_kit(database, max_prices=2) as kit:
        for n in range(2):
            body = {"model": f"m{n}", "rates": {"inputTokens": 1}}
            await kit.call("POST", "/prices", body, 201)
        assert (await kit.refused("/prices", OWN))[0] == "prices"
