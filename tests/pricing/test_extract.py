"""Usage read from the bodies that providers answer."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest
from genai_prices.data_snapshot import get_snapshot
from hypothesis import given
from hypothesis import strategies as st

from meterline.pricing.bodies import BodyError
from meterline.pricing.extract import extract
from meterline.pricing.extracted import Extracted

CHAT = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "gpt-4o-2024-08-06",
    "service_tier": "default",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
        "prompt_tokens_details": {"cached_tokens": 40, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
    },
}
CHAT_CHUNK = {**CHAT, "object": "chat.completion.chunk", "choices": []}
CHAT_EMPTY_CHUNK = {**CHAT_CHUNK, "usage": None, "choices": [{"delta": {"content": "x"}}]}
RESPONSE = {
    "id": "resp_1",
    "object": "response",
    "model": "gpt-5",
    "usage": {
        "input_tokens": 300,
        "input_tokens_details": {"cached_tokens": 200},
        "output_tokens": 60,
        "output_tokens_details": {"reasoning_tokens": 50},
        "total_tokens": 360,
    },
}
EMBEDDINGS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-4-5",
    "content": [],
    "usage": {
        "input_tokens": 11,
        "cache_creation_input_tokens": 3,
        "cache_read_input_tokens": 2,
        "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 2},
        "output_tokens": 7,
        "service_tier": "standard",
        "server_tool_use": {"web_search_requests": 1},
    },
}
MESSAGE_EVENTS = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_2",
            "model": "claude-haiku-4-5",
            "usage": {"input_tokens": 11, "cache_read_input_tokens": 2, "output_tokens": 1},
        },
    },
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
    {
        "type": "message_delta",
        "usage": {"output_tokens": 9, "cache_read_input_tokens": None},
    },
    {"type": "message_stop"},
]
COHERE_USAGE = {
    "billed_units": {"input_tokens": 6.0, "output_tokens": 4.0},
    "tokens": {"input_tokens": 70.0, "output_tokens": 4.0},
}
COHERE = {"id": "c-1", "finish_reason": "COMPLETE", "message": {}, "usage": COHERE_USAGE}
GEMINI = {
    "responseId": "g-1",
    "modelVersion": "gemini-2.5-flash",
    "candidates": [],
    "usageMetadata": {
        "promptTokenCount": 50,
        "cachedContentTokenCount": 20,
        "candidatesTokenCount": 9,
        "thoughtsTokenCount": 4,
        "toolUsePromptTokenCount": 6,
        "totalTokenCount": 69,
        "promptTokensDetails": [
            {"modality": "TEXT", "tokenCount": 40},
            {"modality": "AUDIO", "tokenCount": 10},
        ],
        "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 20}],
    },
}


def counts(found: Extracted) -> Mapping[str, int | Decimal]:
    return {
        key: int(count) if count == int(count) else count
        for key, count in found.usage.counts().items()
        if key != "requests"
    }


def decoded(body: Any) -> Any:
    """As the API decodes it."""
    return json.loads(json.dumps(body), parse_float=Decimal)


CASES: list[tuple[str, Any, str, str | None, dict[str, Any]]] = [
    (
        "chat", CHAT, "openai", "gpt-4o-2024-08-06",
        {"input_tokens": 100, "cached_tokens": 40, "output_tokens": 20, "reasoning_tokens": 5,
         "input_audio_tokens": 0, "output_audio_tokens": 0},
    ),
    (
        "last chunk of a stream", CHAT_CHUNK, "openai", "gpt-4o-2024-08-06",
        {"input_tokens": 100, "cached_tokens": 40, "output_tokens": 20, "reasoning_tokens": 5,
         "input_audio_tokens": 0, "output_audio_tokens": 0},
    ),
    (
        "a whole stream", [CHAT_EMPTY_CHUNK, CHAT_EMPTY_CHUNK, CHAT_CHUNK], "openai",
        "gpt-4o-2024-08-06",
        {"input_tokens": 100, "cached_tokens": 40, "output_tokens": 20, "reasoning_tokens": 5,
         "input_audio_tokens": 0, "output_audio_tokens": 0},
    ),
    (
        "old completion",
        {"object": "text_completion", "id": "cmpl", "model": "gpt-3.5-turbo-instruct",
         "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}},
        "openai", "gpt-3.5-turbo-instruct", {"input_tokens": 5, "output_tokens": 7},
    ),
    (
        "usage of a chat alone",
        {"usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}},
        "openai", None, {"input_tokens": 5, "output_tokens": 7},
    ),
    (
        "reasoning beside the completion",
        {"object": "chat.completion", "model": "grok-4",
         "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 42,
                   "completion_tokens_details": {"reasoning_tokens": 30}}},
        "openai", "grok-4", {"input_tokens": 5, "output_tokens": 37, "reasoning_tokens": 30},
    ),
    (
        "thoughts that only the total tells",
        {"object": "chat.completion", "model": "gemini-2.5-flash",
         "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 1065}},
        "openai", "gemini-2.5-flash", {"input_tokens": 10, "output_tokens": 1055},
    ),
    (
        "a message with a summary made on the way",
        {"type": "message", "model": "claude-sonnet-4-6", "usage": {
            "input_tokens": 100, "output_tokens": 50, "cache_read_input_tokens": 7, "iterations": [
                {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500,
                 "cache_creation_input_tokens": 20, "cache_read_input_tokens": 3},
                {"type": "message", "input_tokens": 100, "output_tokens": 50}]}},
        "anthropic", "claude-sonnet-4-6",
        {"input_tokens": 180_130, "output_tokens": 3_550, "cached_tokens": 10,
         "cache_write_tokens": 20},
    ),
    (
        "cohere embeddings of images",
        {"id": "e", "embeddings": {"float": []},
         "meta": {"billed_units": {"image_tokens": 100, "input_tokens": 10}}},
        "cohere", None, {"input_tokens": 110, "input_image_tokens": 100},
    ),
    (
        "cohere embeddings of images, all told apart",
        {"id": "e", "embeddings": {"float": []},
         "meta": {"billed_units": {"image_tokens": 100, "input_tokens": 110, "text_tokens": 10}}},
        "cohere", None, {"input_tokens": 110, "input_image_tokens": 100},
    ),
    (
        "cohere embeddings by images",
        {"id": "e", "embeddings": {"float": []}, "meta": {"billed_units": {"images": 1}}},
        "cohere", None, {"images": 1},
    ),
    (
        "responses", RESPONSE, "openai", "gpt-5",
        {"input_tokens": 300, "cached_tokens": 200, "output_tokens": 60, "reasoning_tokens": 50},
    ),
    (
        "the last event of a streamed response",
        {"type": "response.completed", "response": RESPONSE}, "openai", "gpt-5",
        {"input_tokens": 300, "cached_tokens": 200, "output_tokens": 60, "reasoning_tokens": 50},
    ),
    (
        "an incomplete response",
        [{"type": "response.created", "response": {**RESPONSE, "usage": None}},
         {"type": "response.incomplete", "response": RESPONSE}], "openai", "gpt-5",
        {"input_tokens": 300, "cached_tokens": 200, "output_tokens": 60, "reasoning_tokens": 50},
    ),
    (
        "web searches of a response",
        {**RESPONSE, "tool_usage": {"web_search": {"num_requests": 3}}}, "openai", "gpt-5",
        {"input_tokens": 300, "cached_tokens": 200, "output_tokens": 60, "reasoning_tokens": 50,
         "web_searches": 3},
    ),
    (
        "realtime",
        {"type": "response.done", "response": {"id": "r", "usage": {
            "input_tokens": 90, "output_tokens": 30,
            "input_token_details": {"audio_tokens": 50, "text_tokens": 40, "cached_tokens": 20,
                                    "cached_tokens_details": {"audio_tokens": 5}},
            "output_token_details": {"audio_tokens": 25}}}},
        "openai", None,
        {"input_tokens": 90, "cached_tokens": 20, "input_audio_tokens": 50,
         "cached_audio_tokens": 5, "output_tokens": 30, "output_audio_tokens": 25},
    ),
    ("embeddings", EMBEDDINGS, "openai", "text-embedding-3-small", {"input_tokens": 8}),
    (
        "transcription by seconds",
        {"text": "x", "usage": {"type": "duration", "seconds": 12.5}}, "openai", None,
        {"audio_seconds": Decimal("12.5")},
    ),
    (
        "transcription by tokens, streamed",
        {"type": "transcript.text.done", "text": "x", "usage": {
            "type": "tokens", "input_tokens": 14, "output_tokens": 45, "total_tokens": 59,
            "input_token_details": {"text_tokens": 4, "audio_tokens": 10}}},
        "openai", None,
        {"input_tokens": 14, "input_audio_tokens": 10, "output_tokens": 45},
    ),
    (
        "images",
        {"created": 1, "data": [{"b64_json": ""}], "usage": {
            "input_tokens": 60, "output_tokens": 400, "total_tokens": 460,
            "input_tokens_details": {"text_tokens": 10, "image_tokens": 50}}},
        "openai", None,
        {"input_tokens": 60, "input_image_tokens": 50, "output_tokens": 400},
    ),
    (
        "message", MESSAGE, "anthropic", "claude-haiku-4-5",
        {"input_tokens": 16, "cached_tokens": 2, "cache_write_tokens": 3,
         "cache_write_5m_tokens": 1, "cache_write_1h_tokens": 2, "output_tokens": 7,
         "web_searches": 1},
    ),
    (
        "a streamed message", MESSAGE_EVENTS, "anthropic", "claude-haiku-4-5",
        {"input_tokens": 13, "cached_tokens": 2, "output_tokens": 9},
    ),
    (
        "a stream that was dropped half-way", MESSAGE_EVENTS[:2], "anthropic", "claude-haiku-4-5",
        {"input_tokens": 13, "cached_tokens": 2, "output_tokens": 1},
    ),
    ("cohere", COHERE, "cohere", None, {"input_tokens": 6, "output_tokens": 4}),
    (
        "a streamed cohere chat",
        {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": COHERE_USAGE}},
        "cohere", None, {"input_tokens": 6, "output_tokens": 4},
    ),
    (
        "cohere embeddings",
        {"id": "e", "embeddings": {"float": []}, "meta": {"billed_units": {"input_tokens": 3}}},
        "cohere", None, {"input_tokens": 3},
    ),
    (
        "cohere rerank",
        {"id": "r", "results": [], "meta": {"billed_units": {"search_units": 1}}},
        "cohere", None, {"rerank_searches": 1},
    ),
    (
        "gemini", GEMINI, "google", "gemini-2.5-flash",
        {"input_tokens": 56, "cached_tokens": 20, "input_audio_tokens": 10,
         "cached_audio_tokens": 0, "cached_image_tokens": 0, "output_tokens": 13,
         "reasoning_tokens": 4},
    ),
    (
        "the last chunk of a gemini stream wins",
        [{"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 10}},
         {"usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 19}}],
        "google", None, {"input_tokens": 5, "output_tokens": 19},
    ),
    (
        "gemini as the Python client spells it",
        {"usage_metadata": {"prompt_token_count": 5, "candidates_token_count": 2,
                            "thoughts_token_count": 3}, "model_version": "gemini-2.5-pro"},
        "google", "gemini-2.5-pro",
        {"input_tokens": 5, "output_tokens": 5, "reasoning_tokens": 3},
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "provider", "model", "expected"),
    [case[1:] for case in CASES],
    ids=[case[0] for case in CASES],
)
@pytest.mark.parametrize("named", [False, True])
def test_usage_of_a_body(
    body: Any, provider: str, model: str | None, expected: Mapping[str, Any], named: bool
) -> None:
    found = extract(decoded(body), provider if named else None)
    assert (found.provider, found.model, counts(found)) == (provider, model, expected)
    assert found.usage.requests == 1


def test_what_else_a_body_tells() -> None:
    chat = extract(decoded(CHAT))
    assert (chat.response_id, chat.context) == ("chatcmpl-1", {"service_tier": "default"})
    batch = {**MESSAGE, "usage": {**MESSAGE["usage"], "service_tier": "batch", "speed": "fast"}}  # type: ignore[dict-item]
    message = extract(decoded(batch))
    assert message.context == {"processing": "batch", "speed": "fast"}
    assert extract(decoded(EMBEDDINGS)).usage_type == "embedding"
    kinds = {name: extract(decoded(body)).usage_type for name, body, *_ in CASES}
    assert kinds["images"] == "image" and kinds["transcription by seconds"] == "audio_stt"


def test_others_answer_in_the_format_of_openai() -> None:
    assert extract(decoded(CHAT), "groq").model == "gpt-4o-2024-08-06"
    assert extract(decoded(MESSAGE), "aws").provider == "anthropic"


@pytest.mark.parametrize(
    ("body", "provider", "where"),
    [
        ({}, None, "body"),
        ([], None, "body"),
        ("text", None, "body"),
        (None, None, "body"),
        ([1], None, "[0]"),
        ({"usage": 5}, None, "usage"),
        ({"object": "chat.completion", "usage": None}, None, "body"),
        ({"object": "chat.completion", "usage": {}}, None, "usage.prompt_tokens"),
        ({"object": "chat.completion", "usage": {"prompt_tokens": -1}}, None,
         "usage.prompt_tokens"),
        ({"object": "chat.completion", "usage": {"prompt_tokens": "9"}}, None,
         "usage.prompt_tokens"),
        ({"object": "chat.completion", "usage": {"prompt_tokens": True}}, None,
         "usage.prompt_tokens"),
        ({"object": "chat.completion",
          "usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}}, None,
         "body"),
        ({"object": "chat.completion", "usage": {"prompt_tokens": 1, "prompt_tokens_details": []}},
         None, "usage.prompt_tokens_details"),
        ({"type": "message", "usage": {"output_tokens": 4}}, None, "usage.input_tokens"),
        ({"type": "message_delta", "usage": {"output_tokens": 4}}, None, "usage.input_tokens"),
        ({"usage": {"billed_units": {"classifications": 4}}}, None, "usage.billed_units"),
        ({"usageMetadata": {}}, None, "usageMetadata"),
        ({"usageMetadata": {"promptTokenCount": 1, "promptTokensDetails": {}}}, None,
         "usageMetadata.promptTokensDetails"),
        ({**CHAT, "model": "a\0"}, None, "model"),
        ([{**CHAT, "model": "a" * 513}], None, "[0].model"),
        ({**CHAT, "service_tier": "\ud800"}, None, "service_tier"),
        ({**MESSAGE, "usage": {"input_tokens": 1, "output_tokens": 1, "iterations": 5}}, None,
         "usage.iterations"),
        ({**MESSAGE, "usage": {"input_tokens": 1, "output_tokens": 1, "iterations": [
            {"type": "compaction", "input_tokens": 1}]}}, None,
         "usage.iterations[0].output_tokens"),
        (CHAT, "anthropic", "body"),
        (MESSAGE, "openai", "body"),
    ],
)  # fmt: skip
def test_an_unknown_shape_says_what_is_wrong_and_where(
    body: Any, provider: str | None, where: str
) -> None:
    with pytest.raises(BodyError) as refused:
        extract(decoded(body), provider)
    assert refused.value.where == where
    assert refused.value.reason


@pytest.mark.parametrize(
    ("name", "provider", "flavor"),
    [
        ("chat", "openai", "chat"),
        ("responses", "openai", "responses"),
        ("embeddings", "openai", "embeddings"),
        ("message", "anthropic", "default"),
        ("cohere", "cohere", "default"),
        ("gemini", "google", "default"),
    ],
)
def test_the_package_of_the_catalogue_reads_the_same(name: str, provider: str, flavor: str) -> None:
    body = next(case[1] for case in CASES if case[0] == name)
    info = next(one for one in get_snapshot().providers if one.id == provider)
    _, theirs = info.extract_usage(decoded(body), api_flavor=flavor)
    ours = extract(decoded(body)).usage
    for their_name, our_name in (
        ("input_tokens", "input_tokens"),
        ("output_tokens", "output_tokens"),
        ("cache_read_tokens", "cached_tokens"),
        ("cache_write_1h_tokens", "cache_write_1h_tokens"),
        ("output_reasoning_tokens", "reasoning_tokens"),
    ):
        if their_name in theirs.__dict__:
            assert theirs.__dict__[their_name] == getattr(ours, our_name)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["usage", "object", "type", "message", "delta", "response", "meta", "billed_units",
             "usageMetadata", "prompt_tokens", "input_tokens", "output_tokens", "data", "tokens"]
        ),
        inner | st.sampled_from(["message", "response", "chat.completion", "list", "duration"]),
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(_JSON)
def test_any_json_is_usage_or_a_clear_error(body: Any) -> None:
    try:
        found = extract(body)
    except BodyError as error:
        assert error.where and error.reason
    else:
        assert all(type(count) is Decimal for count in found.usage.counts().values())
