"""The tracked clients over the providers' own packages, against their wire formats."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from meterline_sdk import Meterline, UsageLimitError
from meterline_sdk.tracked import (
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
ASKED = [{"role": "user", "content": "Say hello to my friend"}]


@pytest.fixture
def openai(stub: Stub, meterline: Meterline) -> Iterator[Any]:
    with TrackedOpenAI(meterline, api_key="k", base_url=f"{stub.url}/v1", max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic(stub: Stub, meterline: Meterline) -> Iterator[Any]:
    with TrackedAnthropic(meterline, api_key="k", base_url=stub.url, max_retries=0) as client:
        yield client


def recorded(stub: Stub, meterline: Meterline) -> dict[str, Any]:
    """The only record, once it has arrived."""
    assert meterline.records.flush()
    (record,) = stub.tracked
    assert record["key"] == "alice"
    return record


def test_a_chat_completion_is_checked_and_recorded(
    stub: Stub, meterline: Meterline, openai: Any
) -> None:
    answer = openai.chat.completions.create(
        model="gpt-4o",
        messages=ASKED,
        user_id="alice",
        track={"tags": ["a"], "conversation_id": "c-1", "estimate": {"tokens": 100}},
    )
    assert answer.choices[0].message.content == TEXT
    assert stub.checks == [{"subject": "alice", "model": "gpt-4o", "estimate": {"tokens": 100}}]
    ((_, sent),) = stub.calls
    assert sent == {"model": "gpt-4o", "messages": ASKED}
    record = recorded(stub, meterline)
    assert record["provider"] == "openai"
    assert record["response"]["usage"] == CHAT_USAGE
    assert record["response"]["model"] == "gpt-4o-2024-08-06"
    assert "choices" not in record["response"]  # what was said is nobody's business
    assert (record["tags"], record["conversationId"]) == (["a"], "c-1")
    assert "estimated" not in record


def test_a_refused_call_is_not_made(stub: Stub, meterline: Meterline, openai: Any) -> None:
    stub.refusal = (402, {"status": 402, "limitType": "monthlyTokenLimit", "limit": 5})
    with pytest.raises(UsageLimitError) as caught:
        openai.chat.completions.create(model="gpt-4o", messages=ASKED, user_id="alice")
    assert caught.value.limit_type == "monthlyTokenLimit"
    assert stub.calls == []
    assert meterline.records.flush()
    assert stub.tracked == []


def test_a_stream_hides_the_chunk_that_only_we_asked_for(
    stub: Stub, meterline: Meterline, openai: Any
) -> None:
    stream = openai.chat.completions.create(
        model="gpt-4o", messages=ASKED, stream=True, user_id="alice"
    )
    # As everybody writes it: an extra chunk without choices would raise IndexError.
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == TEXT
    assert stub.calls[0][1]["stream_options"] == {"include_usage": True}
    assert recorded(stub, meterline)["response"]["usage"] == CHAT_USAGE


def test_a_stream_shows_the_chunk_that_the_caller_asked_for(
    stub: Stub, meterline: Meterline, openai: Any
) -> None:
    stream = openai.chat.completions.create(
        model="gpt-4o",
        messages=ASKED,
        stream=True,
        stream_options={"include_usage": True},
        user_id="alice",
    )
    chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 18
    assert recorded(stub, meterline)["response"]["usage"] == CHAT_USAGE


@pytest.mark.parametrize("way", ["close", "forget", "leave"])
def test_a_dropped_stream_is_accounted_for_and_marked(
    stub: Stub, meterline: Meterline, openai: Any, way: str
) -> None:
    stream = openai.chat.completions.create(
        model="gpt-4o", messages=ASKED, stream=True, user_id="alice"
    )
    assert next(iter(stream)).choices[0].delta.content == WORDS[0]
    if way == "close":
        stream.close()
    elif way == "leave":
        with stream:
            pass
    else:
        stream.response.close()
        del stream
        gc.collect()
    record = recorded(stub, meterline)
    assert record["estimated"] is True
    used = record["response"]["usage"]
    assert used["prompt_tokens"] == 6  # 22 characters
    assert used["completion_tokens"] == 2  # "Hello"
    assert used["total_tokens"] == 8


def test_tools_and_images_are_part_of_an_estimate(
    stub: Stub, meterline: Meterline, openai: Any
) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    tool = {"type": "function", "function": {"name": "look_up", "description": "x" * 4_000}}
    openai.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": [image]}],
        tools=[tool],
        stream=True,
        user_id="alice",
    ).close()
    record = recorded(stub, meterline)
    assert record["estimated"] is True
    assert 2_000 <= record["response"]["usage"]["prompt_tokens"] <= 2_010


def test_the_streaming_helper_of_chat(stub: Stub, meterline: Meterline, openai: Any) -> None:
    with openai.chat.completions.stream(model="gpt-4o", messages=ASKED, user_id="alice") as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert final.choices[0].message.content == TEXT
    assert recorded(stub, meterline)["response"]["usage"]["total_tokens"] == 18


def test_responses(stub: Stub, meterline: Meterline, openai: Any) -> None:
    answer = openai.responses.create(model="gpt-4o", input="Say hello", user_id="alice")
    assert answer.output_text == TEXT
    assert recorded(stub, meterline)["response"]["usage"]["input_tokens"] == 12


def test_streamed_responses(stub: Stub, meterline: Meterline, openai: Any) -> None:
    stream = openai.responses.create(
        model="gpt-4o", input="Say hello", stream=True, user_id="alice"
    )
    words = [event.delta for event in stream if event.type == "response.output_text.delta"]
    assert words == list(WORDS)
    used = recorded(stub, meterline)["response"]["usage"]
    assert {name: used[name] for name in RESPONSE_USAGE} == RESPONSE_USAGE


def test_the_streaming_helper_of_responses(stub: Stub, meterline: Meterline, openai: Any) -> None:
    with openai.responses.stream(model="gpt-4o", input="Say hello", user_id="alice") as stream:
        final = stream.get_final_response()
    assert final.output_text == TEXT
    assert recorded(stub, meterline)["response"]["usage"]["total_tokens"] == 18


def test_embeddings(stub: Stub, meterline: Meterline, openai: Any) -> None:
    found = openai.embeddings.create(
        model="text-embedding-3-small", input="hello", encoding_format="float", user_id="alice"
    )
    assert found.data[0].embedding == [0.5]
    assert recorded(stub, meterline)["response"]["usage"]["prompt_tokens"] == 8


def test_raw_responses_and_copies(stub: Stub, meterline: Meterline, openai: Any) -> None:
    raw = openai.with_options(timeout=5.0).chat.completions.with_raw_response.create(
        model="gpt-4o", messages=ASKED, user_id="alice"
    )
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == TEXT
    assert recorded(stub, meterline)["response"]["usage"] == CHAT_USAGE


def test_raw_streams(stub: Stub, meterline: Meterline, openai: Any) -> None:
    raw = openai.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=ASKED, stream=True, user_id="alice"
    )
    assert "".join(one.choices[0].delta.content or "" for one in raw.parse()) == TEXT
    assert recorded(stub, meterline)["response"]["usage"] == CHAT_USAGE


def test_anthropic_messages(stub: Stub, meterline: Meterline, anthropic: Any) -> None:
    answer = anthropic.messages.create(
        model="claude-sonnet-5", max_tokens=50, messages=ASKED, user_id="alice"
    )
    assert answer.content[0].text == TEXT
    assert recorded(stub, meterline)["response"]["usage"] == ANTHROPIC_USAGE


def test_anthropic_streams(stub: Stub, meterline: Meterline, anthropic: Any) -> None:
    stream = anthropic.messages.create(
        model="claude-sonnet-5", max_tokens=50, messages=ASKED, stream=True, user_id="alice"
    )
    assert [event.type for event in stream][-1] == "message_stop"
    assert recorded(stub, meterline)["response"]["usage"] == ANTHROPIC_USAGE


def test_a_dropped_anthropic_stream_knows_its_input(
    stub: Stub, meterline: Meterline, anthropic: Any
) -> None:
    with anthropic.messages.create(
        model="claude-sonnet-5", max_tokens=50, messages=ASKED, stream=True, user_id="alice"
    ) as stream:
        for event in stream:
            if event.type == "content_block_delta":
                break
    record = recorded(stub, meterline)
    assert record["estimated"] is True
    assert record["response"]["usage"] == {**ANTHROPIC_USAGE, "output_tokens": 2}


@pytest.mark.parametrize("read", ["text", "final", "part"])
def test_the_streaming_helper_of_anthropic(
    stub: Stub, meterline: Meterline, anthropic: Any, read: str
) -> None:
    with anthropic.messages.stream(
        model="claude-sonnet-5", max_tokens=50, messages=ASKED, user_id="alice"
    ) as stream:
        if read == "text":
            assert "".join(stream.text_stream) == TEXT
        elif read == "final":
            assert stream.get_final_message().content[0].text == TEXT
        else:
            assert next(iter(stream.text_stream)) == WORDS[0]
    record = recorded(stub, meterline)
    assert record.get("estimated", False) is (read == "part")
    if read != "part":
        assert record["response"]["usage"]["output_tokens"] == 8
    assert record["response"]["usage"]["cache_read_input_tokens"] == 2


@pytest.fixture
def cohere(stub: Stub, meterline: Meterline) -> Iterator[Any]:
    with TrackedCohere(meterline, api_key="k", base_url=stub.url) as client:
        yield client


def test_cohere(stub: Stub, meterline: Meterline, cohere: Any) -> None:
    answer = cohere.chat(model="command-r", messages=ASKED, user_id="alice")
    assert answer.message.content[0].text == "Hello"
    record = recorded(stub, meterline)
    assert record["modelId"] == "command-r"  # an answer does not say which model gave it
    response = record["response"]
    assert response["usage"]["billed_units"] == COHERE_USAGE["billed_units"]


def test_cohere_streams(stub: Stub, meterline: Meterline, cohere: Any) -> None:
    events = cohere.chat_stream(model="command-r", messages=ASKED, user_id="alice")
    assert [event.type for event in events][-1] == "message-end"
    response = recorded(stub, meterline)["response"]
    assert response["usage"]["billed_units"] == COHERE_USAGE["billed_units"]


@pytest.fixture
def google(stub: Stub, meterline: Meterline) -> Iterator[Any]:
    with TrackedGoogle(meterline, api_key="k", http_options={"base_url": stub.url}) as client:
        yield client


def test_google(stub: Stub, meterline: Meterline, google: Any) -> None:
    answer = google.models.generate_content(
        model="gemini-2.5-flash", contents="Say hello", user_id="alice"
    )
    assert answer.text == TEXT
    assert recorded(stub, meterline)["response"]["usageMetadata"] == GOOGLE_USAGE


def test_google_streams(stub: Stub, meterline: Meterline, google: Any) -> None:
    chunks = google.models.generate_content_stream(
        model="gemini-2.5-flash", contents="Say hello", user_id="alice"
    )
    assert "".join(chunk.text for chunk in chunks) == TEXT
    assert recorded(stub, meterline)["response"]["usageMetadata"] == GOOGLE_USAGE
