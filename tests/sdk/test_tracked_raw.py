"""Raw responses and streaming helpers, in the way of each provider's package."""

import copy
from collections.abc import Iterator
from typing import Any

import openai as openai_package
import pytest

from meterline_sdk import AsyncMeterline, Meterline, RetryPolicy
from meterline_sdk.tracked import (
    AsyncTrackedAnthropic,
    AsyncTrackedCohere,
    AsyncTrackedOpenAI,
    TrackedAnthropic,
    TrackedCohere,
    TrackedGoogle,
    TrackedOpenAI,
)
from tests.sdk.providers import (
    ANTHROPIC_USAGE,
    CHAT_USAGE,
    COHERE_USAGE,
    GOOGLE_USAGE,
    RESPONSE_USAGE,
    WORDS,
    Stub,
)

TEXT = "".join(WORDS)
ASKED: Any = [{"role": "user", "content": "Say hello to my friend"}]
CLAUDE: Any = {"model": "claude-sonnet-5", "max_tokens": 50, "messages": ASKED}
COMMAND: Any = {"model": "command-r", "messages": ASKED}
USER = {"user_id": "alice"}


@pytest.fixture
def openai(stub: Stub, meterline: Meterline) -> Iterator[Any]:
    with TrackedOpenAI(meterline, api_key="k", base_url=f"{stub.url}/v1", max_retries=0) as client:
        yield client


def recorded(stub: Stub, meterline: Meterline | AsyncMeterline, usage: dict[str, Any]) -> None:
    """There is one record, with the figures of the answer."""
    assert meterline.records.flush()
    (record,) = stub.tracked
    assert "estimated" not in record
    used = record["response"]["usage"]
    assert {name: used[name] for name in usage} == usage


def test_raw_messages(stub: Stub, meterline: Meterline) -> None:
    with TrackedAnthropic(meterline, api_key="k", base_url=stub.url) as anthropic:
        raw = anthropic.messages.with_raw_response.create(**CLAUDE, **USER)
        assert raw.headers["content-type"] == "application/json"
        assert raw.parse().content[0].text == TEXT
    recorded(stub, meterline, ANTHROPIC_USAGE)


async def test_raw_messages_are_awaited(stub: Stub) -> None:
    async with (
        AsyncMeterline(stub.url, retries=RetryPolicy(0)) as meterline,
        AsyncTrackedAnthropic(meterline, api_key="k", base_url=stub.url) as anthropic,
    ):
        raw = await anthropic.messages.with_raw_response.create(**CLAUDE, **USER)
        assert (await raw.parse()).content[0].text == TEXT
        recorded(stub, meterline, ANTHROPIC_USAGE)


async def test_raw_streams_of_messages_are_awaited(stub: Stub) -> None:
    async with (
        AsyncMeterline(stub.url, retries=RetryPolicy(0)) as meterline,
        AsyncTrackedAnthropic(meterline, api_key="k", base_url=stub.url) as anthropic,
    ):
        raw = await anthropic.messages.with_raw_response.create(**CLAUDE, stream=True, **USER)
        kinds = [event.type async for event in await raw.parse()]
        assert kinds[-1] == "message_stop"
        recorded(stub, meterline, ANTHROPIC_USAGE)


async def test_raw_answers_of_openai_are_there(stub: Stub) -> None:
    async with (
        AsyncMeterline(stub.url, retries=RetryPolicy(0)) as meterline,
        AsyncTrackedOpenAI(meterline, api_key="k", base_url=f"{stub.url}/v1") as openai,
    ):
        chat = openai.chat.completions.with_raw_response
        raw = await chat.create(model="gpt-4o", messages=ASKED, stream=True, **USER)
        text = [one.choices[0].delta.content or "" async for one in raw.parse()]
        assert "".join(text) == TEXT
        recorded(stub, meterline, CHAT_USAGE)


def test_raw_answers_of_cohere(stub: Stub, meterline: Meterline) -> None:
    with TrackedCohere(meterline, api_key="k", base_url=stub.url) as cohere:
        raw = cohere.with_raw_response.chat(**COMMAND, **USER)
        assert raw.headers["content-type"] == "application/json"
        assert raw.data.message.content[0].text == "Hello"
    recorded(stub, meterline, {})
    assert stub.tracked[0]["response"]["usage"]["billed_units"] == COHERE_USAGE["billed_units"]


def test_raw_streams_of_cohere(stub: Stub, meterline: Meterline) -> None:
    with (
        TrackedCohere(meterline, api_key="k", base_url=stub.url) as cohere,
        cohere.with_raw_response.chat_stream(**COMMAND, **USER) as raw,
    ):
        assert raw.status_code == 200
        assert [event.type for event in raw.data][-1] == "message-end"
    recorded(stub, meterline, {})
    assert stub.tracked[0]["response"]["usage"]["billed_units"] == COHERE_USAGE["billed_units"]


async def test_asynchronous_raw_answers_of_cohere(stub: Stub) -> None:
    async with (
        AsyncMeterline(stub.url, retries=RetryPolicy(0)) as meterline,
        AsyncTrackedCohere(meterline, api_key="k", base_url=stub.url) as cohere,
    ):
        raw = await cohere.with_raw_response.chat(**COMMAND, **USER)
        assert raw.data.message.content[0].text == "Hello"
        async with cohere.with_raw_response.chat_stream(**COMMAND, **USER) as raw:
            assert [event.type async for event in raw.data][-1] == "message-end"
        assert meterline.records.flush()
    assert len(stub.tracked) == 2
    for one in stub.tracked:
        assert "estimated" not in one
        assert one["response"]["usage"]["billed_units"] == COHERE_USAGE["billed_units"]


def test_embeddings_of_cohere_are_told_from_texts(stub: Stub, meterline: Meterline) -> None:
    with TrackedCohere(meterline, api_key="k", base_url=stub.url) as cohere:
        cohere.embed(model="embed-v4.0", texts=["a"], input_type="search_query", **USER)
    assert meterline.records.flush()
    (record,) = stub.tracked
    assert record["response"]["embeddings"] == {}  # not what they are
    assert record["response"]["meta"]["billed_units"]["input_tokens"] == 4
    assert "estimated" not in record


def test_the_helper_of_responses_until_it_is_done(
    stub: Stub, meterline: Meterline, openai: Any
) -> None:
    with openai.responses.stream(model="gpt-4o", input="Say hello", **USER) as stream:
        assert stream.until_done() is stream
        assert stream.get_final_response().output_text == TEXT
    recorded(stub, meterline, RESPONSE_USAGE)


async def test_the_asynchronous_helper_of_responses_until_it_is_done(stub: Stub) -> None:
    async with (
        AsyncMeterline(stub.url, retries=RetryPolicy(0)) as meterline,
        AsyncTrackedOpenAI(meterline, api_key="k", base_url=f"{stub.url}/v1") as openai,
    ):
        async with openai.responses.stream(model="gpt-4o", input="Hello", **USER) as stream:
            await stream.until_done()
        recorded(stub, meterline, RESPONSE_USAGE)


def test_the_helper_of_messages_until_it_is_done(stub: Stub, meterline: Meterline) -> None:
    with (
        TrackedAnthropic(meterline, api_key="k", base_url=stub.url) as anthropic,
        anthropic.messages.stream(**CLAUDE, **USER) as stream,
    ):
        assert stream.until_done() is None
        assert stream.get_final_text() == TEXT
    recorded(stub, meterline, ANTHROPIC_USAGE)


def test_the_helper_of_chat_shows_what_the_package_would_show(
    stub: Stub, meterline: Meterline, openai: Any
) -> None:
    ask: Any = {"model": "gpt-4o", "messages": ASKED}
    with openai.chat.completions.stream(**ask, **USER) as stream:
        final = stream.get_final_completion()
    with (
        openai_package.OpenAI(api_key="k", base_url=f"{stub.url}/v1") as plain,
        plain.chat.completions.stream(**ask) as expected,
    ):
        assert final.to_dict() == expected.get_final_completion().to_dict()
    assert final.usage is None
    recorded(stub, meterline, CHAT_USAGE)


def test_searches_of_a_response_are_told(stub: Stub, meterline: Meterline, openai: Any) -> None:
    used = {"web_search": {"num_requests": 7}}
    stub.change = lambda answer: {**answer, "tool_usage": used}
    openai.responses.create(model="gpt-4o", input="Say hello", **USER)
    assert meterline.records.flush()
    assert stub.tracked[0]["response"]["tool_usage"] == used


def test_the_older_names_of_chat(stub: Stub, meterline: Meterline, openai: Any) -> None:
    answer = openai.beta.chat.completions.parse(model="gpt-4o", messages=ASKED, **USER)
    assert answer.choices[0].message.content == TEXT
    recorded(stub, meterline, CHAT_USAGE)


def test_a_client_can_be_copied(stub: Stub, meterline: Meterline, openai: Any) -> None:
    copied = copy.copy(openai)
    copied.chat.completions.create(model="gpt-4o", messages=ASKED, **USER)
    recorded(stub, meterline, CHAT_USAGE)
    with openai.responses.stream(model="gpt-4o", input="Hello", **USER) as stream:
        assert copy.copy(stream.until_done()).get_final_response().output_text == TEXT


def weather(city: str) -> str:
    """The weather of a city."""
    return f"rain in {city}"


@pytest.mark.parametrize("name", ["generate_content", "generate_content_stream"])
@pytest.mark.parametrize("typed", [False, True])
def test_functions_that_google_calls_by_itself_are_refused(
    stub: Stub, meterline: Meterline, name: str, typed: bool
) -> None:
    from google.genai import types

    config: Any = {"tools": [weather]}
    ask: Any = {"model": "gemini-2.5-flash", "contents": "How is the weather?", **USER}
    with TrackedGoogle(meterline, api_key="k", http_options={"base_url": stub.url}) as google:
        call = getattr(google.models, name)
        given = types.GenerateContentConfig(**config) if typed else config
        with pytest.raises(ValueError, match="automatic_function_calling"):
            call(**ask, config=given)
        assert (stub.checks, stub.calls) == ([], [])
        config["automatic_function_calling"] = {"disable": True}
        given = types.GenerateContentConfig(**config) if typed else config
        answer = call(**ask, config=given)
        if name.endswith("stream"):
            list(answer)
    assert meterline.records.flush()
    assert stub.tracked[0]["response"]["usageMetadata"] == GOOGLE_USAGE
