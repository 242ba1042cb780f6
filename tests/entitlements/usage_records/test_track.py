"""`/api/v1/track`: calls by what their providers answered, by key, tag and conversation."""

import asyncio
import re
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entitlements.usage_records.model import RecordSpec, UsageContext
from entitlements.usage_records.shape import tag_set, tags_of
from entitlements.usage_records.summary import SummaryQuery
from meterline.db.engine import Database
from meterline.kernel.errors import ValidationError
from meterline.pricing.usage import TokenUsage
from tests.entitlements.usage_records.build import Kit, running_kit
from tests.pricing.test_extract import CASES, CHAT, COHERE, GEMINI, MESSAGE, MESSAGE_EVENTS

USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}


async def summary(kit: Kit, by: str, **params: str) -> dict[str, Any]:
    answer = await kit.call("GET", "/track/summary", params={"by": by, **params})
    name = {"conversation": "conversationId"}.get(by, by)
    return {one[name]: one for one in answer["items"]}


async def test_a_body_of_openai(kit: Kit) -> None:
    made = await kit.track(openAiResponse=CHAT, query="hi?", conversationId="c-1", tags=["b", "a"])
    assert (made["key"], made["accountId"], made["context"]) == ("app", "app", "customer")
    assert (made["modelId"], made["provider"]) == ("gpt-4o-2024-08-06", "openai")
    assert (made["inputTokens"], made["cachedTokens"], made["outputTokens"]) == (100, 40, 20)
    assert made["reasoningTokens"] == 5 and made["query"] == "hi?"
    assert made["tags"] == ["a", "b"] and made["conversationId"] == "c-1"
    assert re.fullmatch("openai:chatcmpl-1:[0-9a-f]{32}", made["id"])
    assert made["costUsd"] == Decimal(60 * 250 + 40 * 125 + 20 * 1000) / 100_000_000


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
async def test_every_body_of_every_provider(kit: Kit, case: tuple[Any, ...]) -> None:
    _, body, provider, model, expected = case
    made = await kit.track(response=body, subject="alice")
    assert made["modelId"] == model and made["accountId"] == "alice"
    told = {
        "inputTokens": expected.get("input_tokens"),
        "outputTokens": expected.get("output_tokens"),
        "cachedTokens": expected.get("cached_tokens"),
        "audioDurationSeconds": expected.get("audio_seconds"),
    }
    assert {name: made[name] for name in told} == told
    named = await kit.track(response=body, provider=provider, id="another", modelId="m")
    assert named["modelId"] == "m" and named["priced"] == "unpriced"


async def test_bodies_of_others_are_priced_by_their_makers(kit: Kit) -> None:
    message = await kit.track(response=MESSAGE)
    # 1 in, 0.10 read, 1.25 and 2 written, 5 out, 10 for a thousand searches.
    expected = Decimal(11 * 100 + 2 * 10 + 1 * 125 + 2 * 200 + 7 * 500) / 100_000_000
    assert message["costUsd"] == expected + Decimal("0.01")
    assert (await kit.track(response=MESSAGE_EVENTS))["provider"] == "anthropic"
    assert (await kit.track(response=GEMINI))["provider"] == "google"
    assert (await kit.track(response=GEMINI, provider="google"))["priced"] == "catalogue"
    cohere = await kit.track(response=COHERE, modelId="command-r-plus-08-2024")
    assert cohere["priced"] == "catalogue" and cohere["provider"] == "cohere"
    hosted = await kit.track(response={**CHAT, "id": "x", "model": "gpt-4o"}, provider="azure")
    assert hosted["provider"] == "azure" and hosted["priced"] == "catalogue"


async def test_usage_alone(kit: Kit) -> None:
    made = await kit.track(usage=USAGE)
    assert made["modelId"] is None and made["priced"] == "unpriced"
    assert (made["inputTokens"], made["outputTokens"]) == (30, 12)
    priced = await kit.track(usage=USAGE, modelId="gpt-4o")
    assert priced["costUsd"] == Decimal(30 * 25 + 12 * 100) / 10_000_000
    # Nothing names them, so each is a call of its own.
    assert len(kit.store.events) == 2


async def test_an_answer_that_is_tracked_twice_counts_once(any_kit: Kit) -> None:
    first = await any_kit.track(openAiResponse=CHAT)
    any_kit.clock.advance(3)
    assert await any_kit.track(openAiResponse=CHAT) == first
    assert len(any_kit.store.events) == 1
    changed: dict[str, Any] = {**CHAT, "usage": USAGE}
    assert (await any_kit.track(409, openAiResponse=changed))["extensions"]["field"] == "id"
    await any_kit.track(openAiResponse=changed, id="chosen")
    assert len(any_kit.store.events) == 2


async def test_answers_that_share_an_id_are_told_apart(any_kit: Kit) -> None:
    """Ollama numbers its answers by chance, from 0 to 998."""
    answer = {**CHAT, "id": "chatcmpl-371", "created": 1_700_000_000}
    usage = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}
    others: list[dict[str, Any]] = [
        {"response": answer},
        {"response": {**answer, "usage": usage}, "key": "another"},
        {"response": {**answer, "usage": usage}, "subject": "alice"},
        {"response": {**answer, "usage": usage, "model": "llama3"}},
        {"response": {**answer, "usage": usage, "created": 1_700_000_001}},
    ]
    made = [(await any_kit.track(**one))["id"] for one in others]
    assert len(set(made)) == len(any_kit.store.events) == 5
    assert [(await any_kit.track(**one))["id"] for one in others] == made
    # The clients of Python write the same second as 1700000000.0.
    spelled = {**answer, "created": 1_700_000_000.0}
    assert (await any_kit.track(response=spelled))["id"] == made[0]
    assert len(any_kit.store.events) == 5


async def test_an_id_of_any_length_is_told_apart(any_kit: Kit) -> None:
    for end in ("a", "b"):
        made = await any_kit.track(response={**CHAT, "id": "x" * 5_000 + end})
        assert len(made["id"]) < 512
    assert len(any_kit.store.events) == 2


_HALF = "gpt\ud800"
_TERMS = ({"service_tier": _HALF}, {"service_tier": "x" * 513})


@pytest.mark.parametrize(
    ("body", "where"),
    [
        *(({**CHAT, "model": text}, "response.model") for text in (_HALF, "a\0b", "m" * 513)),
        *(({**CHAT, **terms}, "response.service_tier") for terms in _TERMS),
        ({**CHAT, "id": _HALF}, "response.id"),
        ({**CHAT, "id": "a\0b"}, "response.id"),
        ([{**CHAT, "id": _HALF}], "response[0].id"),
        ({**MESSAGE, "model": _HALF}, "response.model"),
        (
            {**MESSAGE, "usage": {"input_tokens": 1, "output_tokens": 1, "speed": _HALF}},
            "response.usage.speed",
        ),
        ({**GEMINI, "modelVersion": _HALF}, "response.modelVersion"),
        ({**GEMINI, "responseId": _HALF}, "response.responseId"),
        ({**COHERE, "id": _HALF}, "response.id"),
    ],
)
async def test_odd_texts_in_an_answer_are_refused_with_their_place(
    kit: Kit, body: Any, where: str
) -> None:
    assert (await kit.refused("/track", {"key": "app", "response": body}))[0] == where


async def test_an_odd_answer_does_no_harm_to_others(any_kit: Kit) -> None:
    """Names are kept in groups: whoever waits with a bad one must not fail with it."""
    odd = {**CHAT, "id": _HALF}
    good = [any_kit.record(id=f"of-{n}") for n in range(20)]
    await asyncio.gather(*good[:10], any_kit.track(400, response=odd), *good[10:])
    assert len(any_kit.store.events) == 20


async def test_a_name_that_cannot_be_kept_fails_alone(any_database: Database) -> None:
    async with running_kit(any_database) as kit:
        spec = RecordSpec(
            model="gpt-4o", usage=TokenUsage(requests=Decimal(1)), context=UsageContext.SYSTEM,
            subject="s",
        )  # fmt: skip
        ids = ["one", _HALF, "a\0b", "two"]
        made = await asyncio.gather(
            *(kit.usage.record("default", replace(spec, id=one)) for one in ids),
            return_exceptions=True,
        )
        assert [isinstance(one, ValidationError) for one in made] == [False, True, True, False]
        assert {event.id for _, event in kit.store.events} == {"one", "two"}


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({}, "response"),
        ({"response": CHAT, "usage": USAGE}, "response"),
        ({"response": {"hello": "world"}}, "response"),
        ({"response": []}, "response"),
        ({"response": [1]}, "response[0]"),
        ({"response": CHAT, "provider": "anthropic"}, "response"),
        ({"openAiResponse": MESSAGE}, "openAiResponse"),
        ({"openAiResponse": {**CHAT, "usage": {"prompt_tokens": "5"}}},
         "openAiResponse.usage.prompt_tokens"),
        ({"usage": {"prompt_tokens": -5}}, "usage.prompt_tokens"),
        ({"usage": {"total_tokens": 5}}, "usage"),
        ({"response": "text"}, "body.response"),
        ({"usage": USAGE, "key": ""}, "body.key"),
        ({"usage": USAGE, "tags": [""]}, "tags[0]"),
        ({"usage": USAGE, "tags": ["ok", "a\nb"]}, "tags[1]"),
        ({"usage": USAGE, "tags": ["t" * 129]}, "tags[0]"),
        ({"usage": USAGE, "tags": [str(n) for n in range(33)]}, "tags"),
        ({"usage": USAGE, "query": "q" * 16_385}, "query"),
        ({"usage": USAGE, "conversationId": "c" * 513}, "conversationId"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_refused_with_its_place(
    kit: Kit, fields: dict[str, Any], where: str
) -> None:
    assert (await kit.refused("/track", {"key": "app", **fields}))[0] == where
    assert kit.store.events == []


async def test_a_count_that_nothing_can_have_is_refused(kit: Kit) -> None:
    for number in ("5.5e400", "1e-400", "1e999999999", "9" * 400):
        body = f'{{"key": "app", "usage": {{"prompt_tokens": {number}}}}}'
        where, reason = await kit.refused("/track", body)
        assert where.startswith("usage") and "must" in reason
    for name in ("promptTokenCount", "candidatesTokenCount"):
        usage = f'{{"promptTokenCount": 1, "toolUsePromptTokenCount": 1, "{name}": 1e999999999}}'
        body = f'{{"key": "app", "response": {{"usageMetadata": {usage}}}}}'
        assert (await kit.refused("/track", body))[0] == f"response.usageMetadata.{name}"


async def test_a_body_of_any_depth_is_refused_and_not_a_failure(kit: Kit) -> None:
    deep = "[" * 5_000 + "]" * 5_000
    await kit.call("POST", "/track", f'{{"key": "app", "response": {deep}}}', 400)
    some = '{"a":' * 500 + "1" + "}" * 500
    await kit.call("POST", "/track", f'{{"key": "app", "response": {some}}}', 400)


async def test_summaries_by_key_tag_and_conversation(kit: Kit) -> None:
    calls: list[dict[str, Any]] = [
        {"key": "one", "tags": ["red", "blue"], "conversationId": "c1"},
        {"key": "one", "tags": ["red"]},
        {"key": "two", "tags": ["blue", "red", "blue"], "conversationId": "c1"},
        {"key": "two", "conversationId": "c2"},
    ]
    for call in calls:
        await kit.track(usage=USAGE, modelId="gpt-4o", **call)
    await kit.record()
    cost = Decimal(30 * 25 + 12 * 100) / 10_000_000

    keys = await summary(kit, "key")
    assert {key: one["messages"] for key, one in keys.items()} == {"one": 2, "two": 2}
    assert keys["one"]["costUsd"] == 2 * cost and keys["one"]["totalTokens"] == 84
    tags = await summary(kit, "tag")
    assert {tag: one["messages"] for tag, one in tags.items()} == {"blue": 2, "red": 3}
    assert tags["red"]["costUsd"] == 3 * cost and tags["blue"]["inputTokens"] == 60
    conversations = await summary(kit, "conversation")
    assert {one: told["messages"] for one, told in conversations.items()} == {"c1": 2, "c2": 1}

    assert set(await summary(kit, "tag", tag="red")) == {"red"}
    assert (await summary(kit, "tag", tag="red"))["red"]["messages"] == 3
    assert (await summary(kit, "key", tag="blue"))["two"]["messages"] == 1
    assert (await summary(kit, "tag", key="two"))["red"]["messages"] == 1
    assert await summary(kit, "conversation", key="one", conversationId="c2") == {}
    assert (await summary(kit, "key", accountId="two")).keys() == {"two"}


async def test_tags_that_look_like_patterns_or_json_are_only_themselves(kit: Kit) -> None:
    nasty = [
        'a"b',
        "b",
        'b"',
        '"b',
        ',"b',
        '","b',
        "100%",
        "100x",
        "a_b",
        "axb",
        "back\\slash",
        '","',
        "red",
        "[red]",
        "ré",
        "\\",
    ]
    for tag in nasty:
        await kit.track(usage=USAGE, tags=[tag])
    assert (await summary(kit, "tag")).keys() == set(nasty)
    for tag in nasty:
        found = await summary(kit, "key", tag=tag)
        assert found["app"]["messages"] == 1, tag
        totals = await kit.call("GET", "/usage/summary", params={"tag": tag})
        assert totals["totalRequests"] == 1, tag


async def test_before_the_first_call_there_is_nothing(kit: Kit) -> None:
    empty = {"by": "key", "items": [], "asOf": "2026-11-01T12:00:00Z"}
    assert await kit.call("GET", "/track/summary") == empty
    await kit.call("GET", "/track/summary", None, 400, params={"by": "colour"})


_TAGS = st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1), max_size=6)


@given(_TAGS, st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_a_set_of_tags_is_found_by_its_tags_alone(tags: list[str], other: str) -> None:
    from aggregator.filters import FilterLimits, matches, parse_filter

    text = tag_set(tuple(tags)) or ""
    assert tags_of(text) == tuple(sorted(set(tags)))
    for tag in {*tags, other}:
        pattern = SummaryQuery(tag=tag).filters()["tags"]
        assert matches(parse_filter(pattern, "tags", FilterLimits()), text) == (tag in tags)
