"""`/api/v1/usage`: records, their listing and their summary."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from entitlements.builtin import FEATURES, METERS, USAGE_SOURCE, USAGE_TYPE
from meterline.db.engine import Database
from tests.entitlements.usage_records.build import Kit, running_kit

SOME = {"context": "system", "modelId": "gpt-4o", "inputTokens": 5}


async def test_a_record_is_priced_and_durable(any_kit: Kit) -> None:
    made = await any_kit.record(
        context="customer",
        transactionId="tx-1",
        accountId="acme",
        inputTokens=1_000,
        cachedTokens=400,
        outputTokens=50,
        description="a chat",
        metadata={"team": "red"},
    )
    cost = Decimal(600 * 250 + 400 * 125 + 50 * 1000) / 100_000_000
    assert made["costUsd"] == cost and made["priced"] == "catalogue"
    assert (made["accountId"], made["modelId"], made["provider"]) == ("acme", "gpt-4o", "openai")
    assert (made["inputTokens"], made["outputTokens"], made["cachedTokens"]) == (1_000, 50, 400)
    assert made["totalTokens"] == 1_050 and made["audioDurationSeconds"] is None
    assert made["price"]["id"] == "openai/gpt-4o"
    assert made["price"]["catalogue"].startswith("genai-prices ")
    assert made["price"]["rates"]["inputTokens"] == {"price": Decimal("2.5"), "per": 1_000_000}
    assert made["description"] == "a chat" and made["metadata"] == {"team": "red"}
    ((namespace, event),) = any_kit.store.events
    assert namespace == "default" and event.id == made["id"]
    assert (event.source, event.type, event.subject) == (USAGE_SOURCE, USAGE_TYPE, "acme")
    assert event.data["costUsd"] == "0.0025" and event.data["transactionId"] == "tx-1"
    page = await any_kit.call("GET", "/usage")
    assert page == {"items": [made], "nextCursor": None, "asOf": "2026-11-01T12:00:00Z"}


async def test_the_built_in_meters_and_features_come_with_the_first_record(kit: Kit) -> None:
    assert kit.store.meters == {}
    empty = await kit.call("GET", "/usage/summary")
    assert empty["totalCostUsd"] == 0 and empty["byModel"] == []
    await kit.record()
    assert [one.slug for one in kit.store.meters["default"]] == [one.slug for one in METERS]
    assert {key: one.meter_slug for (_, key), one in kit.store.features.items()} == FEATURES


async def test_numbers_keep_every_digit(kit: Kit) -> None:
    body = (
        '{"context": "system", "modelId": "whisper-1", "usageType": "audio_stt",'
        ' "audioDurationSeconds": 8.470000267028809}'
    )
    made = await kit.call("POST", "/usage", body, 201)
    assert made["audioDurationSeconds"] == Decimal("8.470000267028809")
    assert made["costUsd"] == Decimal("0.0008470000267028809").quantize(Decimal("1e-18"))
    assert made["inputTokens"] is None and made["totalTokens"] == 0


async def test_what_has_no_price_says_so(kit: Kit) -> None:
    made = await kit.record(modelId="in-house-7b")
    assert made["priced"] == "unpriced" and made["costUsd"] is None and "price" not in made
    assert "in-house-7b" in made["unpricedReason"]
    ((_, event),) = kit.store.events
    assert "costUsd" not in event.data and event.data["priced"] == "unpriced"
    summary = await kit.call("GET", "/usage/summary")
    assert summary["unpricedRequests"] == 1 and summary["totalCostUsd"] == 0
    assert summary["totalInputTokens"] == 1_000


async def test_the_price_is_that_of_the_call_and_not_of_its_report(kit: Kit) -> None:
    old = await kit.record(modelId="o3", inputTokens=1_000_000, time="2025-05-01T00:00:00Z")
    new = await kit.record(modelId="o3", inputTokens=1_000_000)
    assert (old["costUsd"], new["costUsd"]) == (10, 2)
    assert old["time"] == "2025-05-01T00:00:00Z"


async def test_a_customers_usage_needs_a_transaction_and_an_account(kit: Kit) -> None:
    body = {"context": "customer", "modelId": "gpt-4o", "inputTokens": 1}
    assert (await kit.refused("/usage", body))[0] == "accountId"
    body["externalId"] = "acme"
    assert (await kit.refused("/usage", body))[0] == "transactionId"
    body["transactionId"] = "tx-2"
    assert await kit.refused("/usage", body) == ("transactionId", "there is no such transaction")
    assert kit.store.events == []
    body["transactionId"] = "tx-1"
    theirs = {**body, "externalId": "another"}
    found = await kit.refused("/usage", theirs)
    assert found == ("transactionId", "is a transaction of another account")
    found = await kit.refused("/usage/batch", {"items": [body, theirs]})
    assert found[0] == "items[1].transactionId"
    assert kit.store.events == []
    assert (await kit.call("POST", "/usage", body, 201))["accountId"] == "acme"
    body["accountId"] = "other"
    assert (await kit.refused("/usage", body))[0] == "externalId"


async def test_a_record_is_one_request(kit: Kit) -> None:
    assert (await kit.record())["usage"] == {"inputTokens": 1_000, "requests": 1}
    told = kit.told[0]
    assert told.requests == 1


async def test_a_systems_usage_needs_neither(kit: Kit) -> None:
    assert (await kit.record())["accountId"] is None
    assert (await kit.record(accountId="nightly"))["accountId"] == "nightly"
    listed = await kit.call("GET", "/usage", params={"accountId": "nightly"})
    assert len(listed["items"]) == 1


class TestOnce:
    async def test_the_same_id_counts_once_whenever_it_comes(self, any_kit: Kit) -> None:
        first = await any_kit.record(id="call-1", outputTokens=5)
        any_kit.clock.advance(90)
        await any_kit.call("POST", "/prices", {"model": "gpt-4o", "rates": {"inputTokens": 9}}, 201)
        again = await any_kit.record(id="call-1", outputTokens=5)
        assert again == first
        assert len(any_kit.store.events) == 1 and any_kit.store.conflicts == []
        assert len(any_kit.told) == 1

    async def test_other_content_under_an_id_is_refused(self, any_kit: Kit) -> None:
        await any_kit.record(id="call-1")
        problem = await any_kit.record(409, id="call-1", inputTokens=1_001)
        assert problem["extensions"]["field"] == "id"
        assert len(any_kit.store.events) == 1 and any_kit.store.conflicts == []

    async def test_many_at_once(self, any_kit: Kit) -> None:
        def one(n: int) -> Any:
            return any_kit.record(id=f"call-{n % 10}", inputTokens=n % 10 + 1)

        made = await asyncio.gather(*(one(n) for n in range(60)))
        assert len({record["id"] for record in made}) == 10
        assert len(any_kit.store.events) == 10 and any_kit.store.conflicts == []
        assert len(any_kit.told) == 10

    async def test_two_processes_agree_on_what_an_id_is(self, any_database: Database) -> None:
        async with running_kit(any_database) as one, running_kit(any_database) as other:
            other.clock.advance(7)
            calls = [
                (one, other)[n % 2].call("POST", "/usage", {**SOME, "id": f"c-{n // 2}"}, 201)
                for n in range(40)
            ]
            made = await asyncio.gather(*calls)
            assert all(made[n] == made[n + 1] for n in range(0, 40, 2))
            assert len(one.told) + len(other.told) == 20
            events = {event.id: event for _, event in one.store.events}
            assert all(events[event.id] == event for _, event in other.store.events)

    async def test_a_log_that_was_away_gets_the_same_event_later(self, any_kit: Kit) -> None:
        any_kit.store.broken = True
        await any_kit.record(503, id="call-1")
        any_kit.store.broken = False
        any_kit.clock.advance(5)
        made = await any_kit.record(id="call-1")
        assert made["time"] == "2026-11-01T12:00:00Z"
        assert len(any_kit.store.events) == 1

    async def test_ids_of_namespaces_are_apart(self, kit: Kit) -> None:
        body = {"context": "system", "modelId": "gpt-4o", "inputTokens": 1, "id": "x"}
        await kit.call("POST", "/usage", body, 201, headers={"authorization": "a"})
        await kit.call(
            "POST", "/usage", {**body, "inputTokens": 2}, 201, headers={"authorization": "b"}
        )
        assert len(kit.store.events) == 2
        listed = await kit.call("GET", "/usage", headers={"authorization": "a"})
        assert [one["inputTokens"] for one in listed["items"]] == [1]

    async def test_names_are_forgotten_after_a_while_and_it_still_counts_once(
        self, any_kit: Kit
    ) -> None:
        await any_kit.record(id="call-1")
        any_kit.clock.advance(8 * 86_400)
        await any_kit.record(id="other")
        await any_kit.record(id="call-1")
        assert len(any_kit.store.events) == 2 and len(any_kit.store.conflicts) == 1


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"inputTokens": None}, "inputTokens"),
        ({"inputTokens": -1}, "body.inputTokens"),
        ({"inputTokens": "12"}, "body.inputTokens"),
        ({"inputTokens": True}, "body.inputTokens"),
        ({"inputTokens": 10**13}, "inputTokens"),
        ({"cachedTokens": 1_001}, "cachedTokens"),
        ({"inputTokens": None, "cachedTokens": 1}, "inputTokens"),
        ({"reasoningTokens": 1}, "outputTokens"),
        ({"context": "nobody"}, "body.context"),
        ({"usageType": "video"}, "body.usageType"),
        ({"modelId": ""}, "body.modelId"),
        ({"modelId": "a\u0000b"}, "body.modelId"),
        ({"modelId": "a\nb"}, "modelId"),
        ({"modelId": "m" * 513}, "modelId"),
        ({"id": "i" * 513}, "id"),
        ({"description": "d" * 1_025}, "description"),
        ({"time": "yesterday"}, "body.time"),
        ({"inputTokensX": 1}, "body.inputTokensX"),
        ({"metadata": {"a": 1}}, "body.metadata.a"),
        ({"modelId": " \t"}, "body.modelId"),
        ({"modelId": 1.5}, "body.modelId"),
    ],
)
async def test_what_is_wrong_is_refused_with_its_place(
    kit: Kit, fields: dict[str, Any], where: str
) -> None:
    problem = await kit.record(400, **fields)
    assert problem["extensions"]["validationErrors"][0]["where"] == where
    assert kit.store.events == []


async def test_the_listing_filters_and_pages(kit: Kit) -> None:
    for n in range(7):
        kit.clock.advance(60)
        await kit.record(
            accountId="even" if n % 2 == 0 else "odd",
            modelId="gpt-4o" if n < 4 else "gpt-5",
            inputTokens=n + 1,
        )

    async def listed(**params: Any) -> list[int]:
        page = await kit.call("GET", "/usage", params=params)
        return [int(one["inputTokens"]) for one in page["items"]]

    assert await listed() == [7, 6, 5, 4, 3, 2, 1]
    assert await listed(accountId="odd") == [6, 4, 2]
    assert await listed(externalId="odd", modelId="gpt-5") == [6]
    assert await listed(subject="odd", context="customer") == []
    assert await listed(provider="openai", context="system", limit=2) == [7, 6]
    assert await listed(**{"from": "2026-11-01T12:03:00Z", "to": "2026-11-01T12:05:00Z"}) == [4, 3]
    seen: list[int] = []
    cursor = None
    while True:
        params = {"limit": "3", **({"cursor": cursor} if cursor else {})}
        page = await kit.call("GET", "/usage", params=params)
        seen += [int(one["inputTokens"]) for one in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert seen == [7, 6, 5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "params",
    [
        {"limit": "1001"},
        {"limit": "0"},
        {"cursor": "nonsense"},
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
        {"from": "now"},
        {"context": "both"},
    ],
)
async def test_wrong_parameters_are_refused(kit: Kit, params: dict[str, str]) -> None:
    await kit.call("GET", "/usage", None, 400, params=params)


async def test_the_summary_adds_up_exactly(kit: Kit) -> None:
    expected = Decimal(0)
    for n in range(1, 20):
        made = await kit.record(
            accountId="acme" if n % 3 else "other",
            inputTokens=n * 1_001,
            cachedTokens=n,
            outputTokens=n * 7,
            modelId="gpt-4o" if n % 2 else "claude-haiku-4-5",
        )
        expected += made["costUsd"]
    customer = await kit.record(
        context="customer", transactionId="tx-1", accountId="acme", modelId="unknown"
    )
    assert customer["priced"] == "unpriced"
    summary = await kit.call("GET", "/usage/summary")
    assert summary["totalCostUsd"] == expected
    assert summary["totalInputTokens"] == sum(range(1, 20)) * 1_001 + 1_000
    assert summary["totalOutputTokens"] == sum(range(1, 20)) * 7
    assert summary["totalCachedTokens"] == sum(range(1, 20))
    assert summary["totalRequests"] == 20 and summary["unpricedRequests"] == 1
    models = {one["modelId"]: one for one in summary["byModel"]}
    assert set(models) == {"gpt-4o", "claude-haiku-4-5", "unknown"}
    assert sum(one["costUsd"] for one in models.values()) == expected
    assert models["unknown"]["unpricedRequests"] == 1 and models["unknown"]["costUsd"] == 0
    contexts = {one["context"]: one["requests"] for one in summary["byContext"]}
    assert contexts == {"customer": 1, "system": 19}
    acme = await kit.call("GET", "/usage/summary", params={"accountId": "acme"})
    other = await kit.call("GET", "/usage/summary", params={"accountId": "other", "wait": "true"})
    assert acme["totalCostUsd"] + other["totalCostUsd"] == expected


async def test_listeners_are_told_once_it_is_durable(kit: Kit) -> None:
    await kit.record(accountId="acme", outputTokens=5)
    await kit.record(accountId="acme", modelId="unknown")
    first, second = kit.told
    assert (first.namespace, first.subject) == ("default", "acme")
    assert first.tokens == 1_005
    assert first.cost_usd == Decimal("0.00255") and first.requests == 1
    assert second.cost_usd is None


async def test_a_listener_that_fails_does_not_refuse_what_is_durable(kit: Kit) -> None:
    async def fail(_: object) -> None:
        raise OSError("away")

    kit.usage.on_recorded.insert(0, fail)
    await kit.record()
    assert len(kit.store.events) == 1 and len(kit.told) == 1


class TestBatch:
    async def test_many_records_become_durable_together(self, any_kit: Kit) -> None:
        one = {"context": "system", "modelId": "gpt-4o", "inputTokens": 5}
        items = [{**one, "id": f"b-{n}"} for n in range(3)] + [one, {**one, "id": "b-0"}]
        made = (await any_kit.call("POST", "/usage/batch", {"items": items}, 201))["items"]
        assert [record["id"] for record in made[:3]] == ["b-0", "b-1", "b-2"]
        assert made[4] == made[0]
        assert any_kit.store.writes == 1 and len(any_kit.store.events) == 4
        assert len(any_kit.told) == 4

    async def test_one_that_is_wrong_refuses_all_and_says_which(self, kit: Kit) -> None:
        good = {"context": "system", "modelId": "gpt-4o", "inputTokens": 5}
        for bad, where in (
            ({**good, "cachedTokens": 6}, "items[1].cachedTokens"),
            ({**good, "context": "customer", "accountId": "a"}, "items[1].transactionId"),
            ({**good, "inputTokens": -1}, "body.items[1].inputTokens"),
        ):
            assert (await kit.refused("/usage/batch", {"items": [good, bad]}))[0] == where
        assert (await kit.refused("/usage/batch", {"items": [good] * 1_001}))[0] == "items"
        assert (await kit.refused("/usage/batch", {"items": []}))[0] == "body.items"
        assert kit.store.events == []

    async def test_other_content_under_a_known_id_writes_nothing(self, any_kit: Kit) -> None:
        one = {"context": "system", "modelId": "gpt-4o", "inputTokens": 5}
        await any_kit.call("POST", "/usage", {**one, "id": "known"}, 201)
        items = [{**one, "id": "new"}, {**one, "id": "known", "inputTokens": 6}]
        await any_kit.call("POST", "/usage/batch", {"items": items}, 409)
        assert len(any_kit.store.events) == 1
        # What was named by the refused batch can be sent again, and counts.
        await any_kit.call("POST", "/usage", {**one, "id": "new"}, 201)
        assert len(any_kit.store.events) == 2
