"""Usage records through gateway, sink and store: what is answered is what is metered."""

import csv
import gzip
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest_asyncio

from aggregator.events import EventFilter
from aggregator.query import QueryInput
from entitlements.builtin import (
    CACHED_TOKENS,
    COST,
    FEATURES,
    INPUT_TOKENS,
    METERS,
    OUTPUT_TOKENS,
    REQUESTS,
    TOKENS,
)
from tests.support.clock import FixedClock
from tests.support.kit_usage import RealKit, real_kit
from tests.support.shared import shared_path

NOW = datetime.fromisoformat("2026-11-01T12:00:00+00:00")


@pytest_asyncio.fixture
async def kit(tmp_path: Path) -> AsyncIterator[RealKit]:
    async with real_kit(tmp_path, FixedClock(NOW)) as running:
        yield running


def some_records(count: int, seed: int = 4) -> list[dict[str, Any]]:
    draw = Random(seed)
    items = []
    for n in range(count):
        tokens = draw.randrange(1, 300_000)
        items.append(
            {
                "id": f"call-{n}",
                "context": draw.choice(["system", "customer"]),
                "transactionId": "tx",
                "accountId": draw.choice(["acme", "globex", "initech"]),
                "modelId": draw.choice(
                    ["gpt-4o", "claude-sonnet-4-5", "gemini-2.5-pro", "in-house-7b"]
                ),
                "inputTokens": tokens,
                "cachedTokens": draw.randrange(tokens),
                "outputTokens": draw.randrange(5_000),
                "time": f"2026-10-{draw.randrange(1, 29):02}T{draw.randrange(24):02}:00:00Z",
            }
        )
    return items


async def test_summaries_meters_and_listings_agree_to_the_last_digit(kit: RealKit) -> None:
    sent = some_records(300)
    made: list[dict[str, Any]] = []
    for first in range(0, 300, 75):
        body = {"items": sent[first : first + 75]}
        answer = await kit.call("POST", "/usage/batch", body, 201)
        assert await kit.call("POST", "/usage/batch", body, 201) == answer
        made += answer["items"]
    summary = await kit.call("GET", "/usage/summary", params={"wait": "true"})
    cost = sum(one["costUsd"] or 0 for one in made)
    assert summary["totalCostUsd"] == cost > 1
    assert summary["totalInputTokens"] == sum(one["inputTokens"] for one in sent)
    assert summary["totalRequests"] == 300
    unpriced = sum(one["modelId"] == "in-house-7b" for one in sent)
    assert summary["unpricedRequests"] == unpriced > 0
    figures = {
        "totalCostUsd": COST,
        "totalInputTokens": INPUT_TOKENS,
        "totalOutputTokens": OUTPUT_TOKENS,
        "totalCachedTokens": CACHED_TOKENS,
        "totalTokens": TOKENS,
        "totalRequests": REQUESTS,
    }
    for name, slug in figures.items():
        assert (await kit.meter(slug))[()] == summary[name], name
    by_model = await kit.meter(COST, group_by=("model",))
    assert by_model == {
        (one["modelId"],): one["costUsd"] for one in summary["byModel"] if one["costUsd"]
    }
    listed = await everything(kit)
    assert [one["time"] for one in listed] == sorted((one["time"] for one in made), reverse=True)
    assert {one["id"]: one for one in listed} == {one["id"]: one for one in made}
    mine = await everything(kit, accountId="acme", modelId="gpt-4o", context="customer")
    expected = [
        one["id"] for one in sent
        if (one["accountId"], one["modelId"], one["context"]) == ("acme", "gpt-4o", "customer")
    ]  # fmt: skip
    assert sorted(one["id"] for one in mine) == sorted(expected)
    params = {"accountId": "acme", "modelId": "gpt-4o", "context": "customer"}
    part = await kit.call("GET", "/usage/summary", params=params)
    assert part["totalCostUsd"] == sum(one["costUsd"] for one in mine)
    assert part["totalRequests"] == len(mine) > 0


async def everything(kit: RealKit, **params: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        given = {**params, "limit": "70", **({"cursor": cursor} if cursor else {})}
        page = await kit.call("GET", "/usage", params=given)
        found += page["items"]
        cursor = page["nextCursor"]
        if cursor is None:
            return found


async def test_the_built_ins_are_there_and_only_unpriced_calls_have_an_error(kit: RealKit) -> None:
    body = {"context": "system", "modelId": "gpt-4o", "inputTokens": 5}
    await kit.call("POST", "/usage", body, 201)
    await kit.call("POST", "/usage", {**body, "modelId": "nobody-knows"}, 201)
    await kit.call("POST", "/track", {"key": "k", "usage": {"prompt_tokens": 3}}, 201)
    await kit.call("GET", "/usage/summary", params={"wait": "true"})
    slugs = {one.slug for one in await kit.base.meters.list("default")}
    assert slugs == {one.slug for one in METERS}
    for key, slug in FEATURES.items():
        assert (await kit.base.features.get("default", key)).meter_slug == slug
    listed = await kit.events.list("default", EventFilter(), 10)
    wrong = {
        json.loads(one.event)["data"].get("model"): one.validation_error
        for one in listed
        if one.validation_error
    }
    assert wrong.keys() == {None, "nobody-knows"}
    assert all("$.costUsd" in reason for reason in wrong.values())


async def test_tags_conversations_and_keys(kit: RealKit) -> None:
    nasty = ['a"b', "100%", "100x", "a_b", "axb", "back\\slash", '","', "ré"]
    usage = {"prompt_tokens": 30, "completion_tokens": 12}
    for n, tag in enumerate(nasty):
        body = {
            "key": f"key-{n % 2}",
            "usage": usage,
            "modelId": "gpt-4o",
            "tags": [tag, "all"],
            "conversationId": f"c-{n % 3}",
        }
        await kit.call("POST", "/track", body, 201)
    await kit.call("GET", "/usage", params={"wait": "true"})
    cost = Decimal(30 * 25 + 12 * 100) / 10_000_000

    async def by(what: str, **params: str) -> dict[str, Any]:
        answer = await kit.call("GET", "/track/summary", params={"by": what, **params})
        name = "conversationId" if what == "conversation" else what
        return {one[name]: (one["messages"], one["costUsd"]) for one in answer["items"]}

    assert await by("tag") == {**dict.fromkeys(nasty, (1, cost)), "all": (8, 8 * cost)}
    assert await by("key") == {"key-0": (4, 4 * cost), "key-1": (4, 4 * cost)}
    assert {one: told[0] for one, told in (await by("conversation")).items()} == {
        "c-0": 3, "c-1": 3, "c-2": 2,
    }  # fmt: skip
    for tag in nasty:
        assert sum(told[0] for told in (await by("key", tag=tag)).values()) == 1, tag
    # A meter tells the same.
    pattern = {"tags": {"$like": '%"axb"%'}}
    assert await kit.meter(REQUESTS, group_by=("key",), filters=pattern) == {("key-0",): 1}


async def test_the_mooncake_trace_costs_what_integers_say(kit: RealKit) -> None:
    path = shared_path("data/mooncake_conversation.csv.gz")
    expected = json.loads(shared_path("data/mooncake_conversation.expected.json").read_bytes())
    rates = {"inputTokens": "0.60", "cachedTokens": "0.15", "outputTokens": "2.50"}
    await kit.call("POST", "/prices", {"model": "kimi-k2", "rates": rates}, 201)
    start = NOW.timestamp()
    items = []
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            micros = int(row["timestamp_ms"]) * 1000
            time = datetime.fromtimestamp(start + micros // 10**6, NOW.tzinfo)
            items.append(
                {
                    "id": f"mooncake-{row['row']}",
                    "context": "system",
                    "modelId": "kimi-k2",
                    "time": time.replace(microsecond=micros % 10**6).isoformat(),
                    "inputTokens": int(row["input_length"]),
                    "cachedTokens": int(row["cached_tokens"]),
                    "outputTokens": int(row["output_length"]),
                }
            )
    for first in range(0, len(items), 1_000):
        await kit.call("POST", "/usage/batch", {"items": items[first : first + 1_000]}, 201)
    # Some are sent again.
    await kit.call("POST", "/usage/batch", {"items": items[:100]}, 201)

    def micro_cents(figures: dict[str, int]) -> int:
        plain = figures["input"] - figures["cached"]
        return plain * 60 + figures["cached"] * 15 + figures["output"] * 250

    summary = await kit.call("GET", "/usage/summary", params={"wait": "true"})
    total = expected["total"]
    assert summary["totalCostUsd"] * 10**8 == micro_cents(total)
    assert summary["totalRequests"] == total["count"] == len(items)
    assert summary["totalInputTokens"] == total["input"]
    assert summary["totalOutputTokens"] == total["output"]
    assert summary["totalCachedTokens"] == total["cached"]
    assert summary["unpricedRequests"] == 0
    minutes = await kit.base.meters.query("default", COST, QueryInput(window_size="MINUTE"))
    found = {
        str((row.window_start - NOW) // timedelta(minutes=1)): row.value for row in minutes.rows
    }
    assert found == {
        minute: Decimal(micro_cents(figures)) / 10**8
        for minute, figures in expected["minutes"].items()
    }
