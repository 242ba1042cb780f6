"""What other prices would make of recorded calls."""

from decimal import Decimal
from typing import Any

from entitlements.usage_records.reprice import UNREADABLE, Repriced, reprice, together
from meterline.pricing.book import PriceBook
from tests.entitlements.usage_records.build import Kit
from tests.pricing.build import CATALOGUE, override


async def recorded(kit: Kit) -> list[dict[str, Any]]:
    for model, tokens in (("gpt-4o", 1_000_000), ("gpt-4o", 2_000_000), ("o3", 1_000_000)):
        await kit.record(modelId=model, inputTokens=tokens)
    await kit.record(modelId="o3", inputTokens=1_000_000, time="2025-05-01T00:00:00Z")
    await kit.record(modelId="in-house", inputTokens=1_000_000)
    await kit.record(modelId="o3", inputTokens=1_000_000, serviceTier="flex")
    body = {"key": "k", "usage": {"prompt_tokens": 7, "completion_tokens": 1}}
    await kit.call("POST", "/track", body, 201)
    return list((await kit.call("GET", "/usage"))["items"])


async def test_the_same_prices_change_nothing(kit: Kit) -> None:
    found = reprice(await recorded(kit), PriceBook(CATALOGUE))
    assert sum(one.calls for one in found.values()) == 7
    assert together(found.values()).changed == 0
    assert together(found.values()).difference == 0
    assert all(before == after for _, _, before, after in found)


async def test_other_prices_change_what_they_touch(kit: Kit) -> None:
    own = (override("gpt-4o", "a", input_tokens=3), override("in-house", "b", input_tokens=1))
    found = reprice(await recorded(kit), PriceBook(CATALOGUE, own))
    gpt = found["openai", "gpt-4o", "catalogue", "override"]
    assert gpt == Repriced(2, 2, Decimal("7.5"), Decimal(9))
    assert gpt.difference == Decimal("1.5")
    house = found["", "in-house", "unpriced", "override"]
    assert house == Repriced(1, 1, Decimal(0), Decimal(1))
    # At their own dates and terms: 10, 2 and 1.
    assert found["openai", "o3", "catalogue", "catalogue"].before_usd == 13
    assert together(found.values()).changed == 3


async def test_what_cannot_be_read_is_counted_and_stays_as_it_is(kit: Kit) -> None:
    records = await recorded(kit)
    absurd = {"inputTokens": 10**13, "outputTokens": 1}
    records.append({**records[0], "modelId": "gpt-4o", "costUsd": Decimal(5), "usage": absurd})
    found = reprice(records, PriceBook(CATALOGUE, (override("gpt-4o", input_tokens=3),)))
    (kind,) = [one for one in found if one[-1] == UNREADABLE]
    assert found[kind] == Repriced(1, 0, Decimal(5), Decimal(5))
    assert together(found.values()).calls == len(records)
    assert together(found.values()).changed == 2


async def test_a_price_that_lacks_a_rate_makes_calls_unpriced(kit: Kit) -> None:
    records = await recorded(kit)
    found = reprice(records, PriceBook(CATALOGUE, (override("*", output_tokens=1),)))
    assert found["openai", "gpt-4o", "catalogue", "unpriced"].after_usd == 0
    assert {after for *_, after in found} == {"unpriced"}
