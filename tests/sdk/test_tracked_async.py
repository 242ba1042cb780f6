"""The asynchronous tracked clients; what they share with the others is tested there."""

import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from meterline_sdk import AsyncMeterline, RateLimitError, RetryPolicy
from meterline_sdk.tracked import (
    AsyncTrackedAnthropic,
    AsyncTrackedCohere,
    AsyncTrackedGoogle,
    AsyncTrackedOpenAI,
)
from tests.sdk.providers import (
    ANTHROPIC_USAGE,
    CHAT_USAGE,
    COHERE_USAGE,
    GOOGLE_USAGE,
    WORDS,
    Stub,
)

TEXT = "".join(WORDS)
ASKED = [{"role": "user", "content": "Say hello to my friend"}]


@pytest.fixture
async def meterline(stub: Stub) -> AsyncIterator[AsyncMeterline]:
    async with AsyncMeterline(stub.url, retries=RetryPolicy(0)) as client:
        yield client


def recorded(stub: Stub, meterline: AsyncMeterline) -> dict[str, Any]:
    assert meterline.records.flush()
    (record,) = stub.tracked
    assert len(stub.checks) == 1
    return record


async def test_openai(stub: Stub, meterline: AsyncMeterline) -> None:
    async with AsyncTrackedOpenAI(meterline, api_key="k", base_url=f"{stub.url}/v1") as openai:
        answer = await openai.chat.completions.create(
            model="gpt-4o", messages=ASKED, user_id="alice"
        )
    assert answer.choices[0].message.content == TEXT
    assert recorded(stub, meterline)["response"]["usage"] == CHAT_USAGE


async def test_openai_streams(stub: Stub, meterline: AsyncMeterline) -> None:
    async with AsyncTrackedOpenAI(meterline, api_key="k", base_url=f"{stub.url}/v1") as openai:
        stream = await openai.chat.completions.create(
            model="gpt-4o", messages=ASKED, stream=True, user_id="alice"
        )
        assert "".join([one.choices[0].delta.content or "" async for one in stream]) == TEXT
    assert recorded(stub, meterline)["response"]["usage"] == CHAT_USAGE


async def test_a_dropped_stream_is_estimated(stub: Stub, meterline: AsyncMeterline) -> None:
    async with AsyncTrackedOpenAI(meterline, api_key="k", base_url=f"{stub.url}/v1") as openai:
        stream = await openai.chat.completions.create(
            model="gpt-4o", messages=ASKED, stream=True, user_id="alice"
        )
        async for _ in stream:
            break
        await stream.close()
        del stream
        gc.collect()
    record = recorded(stub, meterline)
    assert record["estimated"] is True
    assert record["response"]["usage"]["completion_tokens"] == 2


async def test_a_refusal(stub: Stub, meterline: AsyncMeterline) -> None:
    stub.refusal = (429, {"status": 429, "limitType": "requestsPerMinute", "retryAfter": 7})
    async with AsyncTrackedCohere(meterline, api_key="k", base_url=stub.url) as cohere:
        events = cohere.chat_stream(model="command-r", messages=ASKED, user_id="alice")
        with pytest.raises(RateLimitError) as caught:
            await anext(events)
        del events
        gc.collect()
    assert caught.value.retry_after == 7.0
    assert stub.calls == []
    assert meterline.records.flush()
    assert stub.tracked == []


async def test_anthropic(stub: Stub, meterline: AsyncMeterline) -> None:
    async with (
        AsyncTrackedAnthropic(meterline, api_key="k", base_url=stub.url) as anthropic,
        anthropic.messages.stream(
            model="claude-sonnet-5", max_tokens=50, messages=ASKED, user_id="alice"
        ) as stream,
    ):
        assert "".join([text async for text in stream.text_stream]) == TEXT
    used = recorded(stub, meterline)["response"]["usage"]
    assert {name: used[name] for name in ANTHROPIC_USAGE} == ANTHROPIC_USAGE


async def test_cohere(stub: Stub, meterline: AsyncMeterline) -> None:
    async with AsyncTrackedCohere(meterline, api_key="k", base_url=stub.url) as cohere:
        events = cohere.chat_stream(model="command-r", messages=ASKED, user_id="alice")
        assert [event.type async for event in events][-1] == "message-end"
    used = recorded(stub, meterline)["response"]["usage"]
    assert used["billed_units"] == COHERE_USAGE["billed_units"]


async def test_google(stub: Stub, meterline: AsyncMeterline) -> None:
    google = AsyncTrackedGoogle(meterline, api_key="k", http_options={"base_url": stub.url})
    async with google:
        chunks = await google.models.generate_content_stream(
            model="gemini-2.5-flash", contents="Say hello", user_id="alice"
        )
        assert "".join([chunk.text async for chunk in chunks]) == TEXT
    assert recorded(stub, meterline)["response"]["usageMetadata"] == GOOGLE_USAGE
