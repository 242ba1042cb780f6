"""Calls that are paid although they fail, or whose answers say less than others."""

import gc
import logging
from collections.abc import Iterator
from typing import Any

import cohere as cohere_package
import google.genai.errors
import openai as openai_package
import pytest
from pydantic import BaseModel, ValidationError

from meterline_sdk import (
    AsyncMeterline,
    BufferFullError,
    Meterline,
    MeterlineError,
    RetryPolicy,
)
from meterline_sdk.tracked import (
    AsyncTrackedAnthropic,
    AsyncTrackedOpenAI,
    TrackedAnthropic,
    TrackedCohere,
    TrackedGoogle,
    TrackedOpenAI,
)
from tests.sdk.providers import ANTHROPIC_USAGE, CHAT_USAGE, RESPONSE_USAGE, Stub

ASKED: Any = [{"role": "user", "content": "Say hello to my friend"}]
CLAUDE: Any = {"model": "claude-sonnet-5", "max_tokens": 50, "messages": ASKED}
USER = {"user_id": "alice"}


class Answer(BaseModel):
    """What a model shall answer, and does not."""

    city: str


@pytest.fixture
def openai(stub: Stub, meterline: Meterline) -> Iterator[Any]:
    with TrackedOpenAI(
        meterline, api_key="k", base_url=f"{stub.url}/v1", max_retries=0, reserve=True
    ) as client:
        yield client


@pytest.fixture
def anthropic(stub: Stub, meterline: Meterline) -> Iterator[Any]:
    with TrackedAnthropic(
        meterline, api_key="k", base_url=stub.url, max_retries=0, reserve=True
    ) as client:
        yield client


@pytest.fixture
def cohere(stub: Stub, meterline: Meterline) -> Iterator[Any]:
    with TrackedCohere(meterline, api_key="k", base_url=stub.url, reserve=True) as client:
        yield client


@pytest.fixture
def google_client(stub: Stub, meterline: Meterline) -> Iterator[Any]:
    with TrackedGoogle(
        meterline, api_key="k", http_options={"base_url": stub.url}, reserve=True
    ) as client:
        yield client


def recorded(stub: Stub, meterline: Meterline) -> dict[str, Any]:
    """The only record, which is what gives back what was set aside."""
    assert meterline.records.flush()
    (record,) = stub.tracked
    assert stub.released == []
    return record


def has(record: dict[str, Any], usage: dict[str, Any]) -> bool:
    used = record["response"]["usage"]
    return {name: used[name] for name in usage} == usage and "estimated" not in record


@pytest.mark.parametrize("beta", [False, True])
def test_an_answer_that_cannot_be_parsed_is_paid(
    stub: Stub, meterline: Meterline, openai: Any, beta: bool
) -> None:
    chat = (openai.beta if beta else openai).chat
    with pytest.raises(ValidationError):
        chat.completions.parse(model="gpt-4o", messages=ASKED, response_format=Answer, **USER)
    assert has(recorded(stub, meterline), CHAT_USAGE)


def test_an_answer_that_was_cut_off_is_paid(stub: Stub, meterline: Meterline, openai: Any) -> None:
    def cut(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0]["finish_reason"] = "length"
        return answer

    stub.change = cut
    with pytest.raises(openai_package.LengthFinishReasonError):
        openai.chat.completions.parse(
            model="gpt-4o", messages=ASKED, response_format=Answer, **USER
        )
    assert has(recorded(stub, meterline), CHAT_USAGE)


def test_a_response_that_cannot_be_parsed_is_paid(
    stub: Stub, meterline: Meterline, openai: Any
) -> None:
    with pytest.raises(ValidationError):
        openai.responses.parse(model="gpt-4o", input="Hello", text_format=Answer, **USER)
    assert has(recorded(stub, meterline), RESPONSE_USAGE)


def test_a_message_that_cannot_be_parsed_is_paid(
    stub: Stub, meterline: Meterline, anthropic: Any
) -> None:
    with pytest.raises(ValidationError):
        anthropic.messages.parse(**CLAUDE, output_format=Answer, **USER)
    # The package has no raw response of it, so that nobody has seen the figures.
    record = recorded(stub, meterline)
    assert record["estimated"] is True
    used = record["response"]["usage"]
    assert used["input_tokens"] > 6  # the schema is sent, too
    assert used["output_tokens"] == 5


def test_a_message_of_the_beta_that_cannot_be_parsed_is_paid(
    stub: Stub, meterline: Meterline, anthropic: Any
) -> None:
    with pytest.raises(ValidationError):
        anthropic.beta.messages.parse(**CLAUDE, output_format=Answer, **USER)
    assert has(recorded(stub, meterline), ANTHROPIC_USAGE)


async def test_parsing_is_awaited(stub: Stub) -> None:
    async with (
        AsyncMeterline(stub.url, retries=RetryPolicy(0)) as meterline,
        AsyncTrackedOpenAI(meterline, api_key="k", base_url=f"{stub.url}/v1") as openai,
        AsyncTrackedAnthropic(meterline, api_key="k", base_url=stub.url) as anthropic,
    ):
        ask: Any = {"model": "gpt-4o", "messages": ASKED}
        with pytest.raises(ValidationError):
            await openai.chat.completions.parse(**ask, response_format=Answer, **USER)
        assert (await openai.chat.completions.parse(**ask, **USER)).id == "chatcmpl-1"
        with pytest.raises(ValidationError):
            await anthropic.beta.messages.parse(**CLAUDE, output_format=Answer, **USER)
        assert (await anthropic.beta.messages.parse(**CLAUDE, **USER)).id == "msg_a"
        assert meterline.records.flush()
    assert len(stub.tracked) == 4
    for one in stub.tracked:
        usage = CHAT_USAGE if one["provider"] == "openai" else ANTHROPIC_USAGE
        assert has(one, usage)


def test_what_is_parsed_is_what_the_package_gives(
    stub: Stub, meterline: Meterline, openai: Any
) -> None:
    def in_form(answer: dict[str, Any]) -> dict[str, Any]:
        answer["choices"][0]["message"]["content"] = '{"city": "Bern"}'
        return answer

    stub.change = in_form
    ask: Any = {"model": "gpt-4o", "messages": ASKED, "response_format": Answer}
    answer = openai.chat.completions.parse(**ask, **USER)
    assert answer.choices[0].message.parsed == Answer(city="Bern")
    with openai_package.OpenAI(api_key="k", base_url=f"{stub.url}/v1") as plain:
        expected = plain.chat.completions.parse(**ask)
    assert type(answer) is type(expected)
    assert answer == expected
    assert has(recorded(stub, meterline), CHAT_USAGE)


def test_a_parsed_call_that_fails_uses_nothing(
    stub: Stub, meterline: Meterline, openai: Any, anthropic: Any
) -> None:
    stub.failures = 1
    with pytest.raises(openai_package.InternalServerError):
        openai.chat.completions.parse(model="gpt-4o", messages=ASKED, **USER)
    with pytest.raises(TypeError):
        anthropic.messages.parse(model="claude-sonnet-5", **USER)
    assert meterline.records.flush()
    assert stub.tracked == []
    assert len(stub.released) == 4


@pytest.mark.parametrize("when", ["full", "closed"])
def test_an_answer_is_given_though_its_record_has_no_place(stub: Stub, when: str) -> None:
    dropped: list[Any] = []
    options: Any = {
        "max_events": 0 if when == "full" else 10,
        "when_full": "raise",
        "on_drop": lambda events, error: dropped.append((events, error)),
    }
    with (
        Meterline(stub.url, retries=RetryPolicy(0), buffer=options) as meterline,
        TrackedOpenAI(meterline, api_key="k", base_url=f"{stub.url}/v1") as openai,
    ):
        if when == "closed":
            meterline.records.close()
        answer = openai.chat.completions.create(model="gpt-4o", messages=ASKED, **USER)
    assert answer.choices[0].message.content
    ((events, error),) = dropped
    assert isinstance(error, BufferFullError if when == "full" else MeterlineError)
    assert events[0]["path"] == "/api/v1/track"
    assert events[0]["body"]["response"]["usage"] == CHAT_USAGE
    assert events[0]["body"]["key"] == "alice"


def test_not_even_an_on_drop_that_fails_takes_the_answer(
    stub: Stub, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise OSError("no disk")

    options: Any = {"max_events": 0, "when_full": "raise", "on_drop": fail}
    with (
        Meterline(stub.url, retries=RetryPolicy(0), buffer=options) as meterline,
        TrackedOpenAI(meterline, api_key="k", base_url=f"{stub.url}/v1") as openai,
        caplog.at_level(logging.ERROR, "meterline_sdk"),
    ):
        assert openai.chat.completions.create(model="gpt-4o", messages=ASKED, **USER).id
    assert "alice" in caplog.text


def test_a_failure_is_seen_though_nothing_can_be_given_back(stub: Stub) -> None:
    options: Any = {"max_events": 0, "when_full": "raise"}
    with (
        Meterline(stub.url, retries=RetryPolicy(0), buffer=options) as meterline,
        TrackedOpenAI(
            meterline, api_key="k", base_url=f"{stub.url}/v1", max_retries=0, reserve=True
        ) as openai,
    ):
        stub.failures = 1
        with pytest.raises(openai_package.InternalServerError):
            openai.chat.completions.create(model="gpt-4o", messages=ASKED, **USER)


def test_a_stream_that_is_refused_uses_nothing(
    stub: Stub, meterline: Meterline, cohere: Any, google_client: Any
) -> None:
    stub.failures = 1
    events = cohere.chat_stream(
        model="command-r", messages=ASKED, request_options={"max_retries": 0}, **USER
    )
    with pytest.raises(cohere_package.core.ApiError):
        next(events)
    stub.failures = 1
    chunks = google_client.models.generate_content_stream(
        model="gemini-2.5-flash", contents="Say hello", **USER
    )
    with pytest.raises(google.genai.errors.ServerError):
        next(chunks)
    del events, chunks
    gc.collect()
    assert meterline.records.flush()
    assert stub.tracked == []
    assert len(stub.released) == 4


def test_a_stream_that_nobody_reads_is_estimated(
    stub: Stub, meterline: Meterline, cohere: Any
) -> None:
    cohere.chat_stream(model="command-r", messages=ASKED, **USER).close()
    assert recorded(stub, meterline)["estimated"] is True


def without_usage(answer: dict[str, Any]) -> dict[str, Any]:
    left_out = ("usage", "meta", "usageMetadata")
    return {name: value for name, value in answer.items() if name not in left_out}


@pytest.mark.parametrize(
    ("client", "method", "kwargs", "expected"),
    [
        (
            "openai",
            "chat.completions.create",
            {"model": "local", "messages": ASKED},
            {"prompt_tokens": 6, "completion_tokens": 5, "total_tokens": 11},
        ),
        (
            "openai",
            "responses.create",
            {"model": "local", "input": "Say hello"},
            {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8},
        ),
        (
            "openai",
            "embeddings.create",
            {"model": "local", "input": ["Say", "hello"], "encoding_format": "float"},
            {"prompt_tokens": 2, "total_tokens": 2},
        ),
        ("anthropic", "messages.create", CLAUDE, {"input_tokens": 6, "output_tokens": 5}),
    ],
)
def test_an_answer_that_does_not_say_what_it_used_is_estimated(
    stub: Stub,
    meterline: Meterline,
    request: pytest.FixtureRequest,
    client: str,
    method: str,
    kwargs: dict[str, Any],
    expected: dict[str, int],
) -> None:
    stub.change = without_usage
    call = request.getfixturevalue(client)
    for name in method.split("."):
        call = getattr(call, name)
    call(**kwargs, **USER)
    record = recorded(stub, meterline)
    assert record["estimated"] is True
    assert record["response"]["usage"] == expected


@pytest.mark.parametrize(
    ("method", "kwargs", "expected"),
    [
        ("chat", {"messages": ASKED}, {"input_tokens": 6, "output_tokens": 2}),
        ("embed", {"texts": ["Say hello"], "input_type": "search_query"}, {"input_tokens": 3}),
        ("rerank", {"query": "Say", "documents": ["hello"] * 101}, {"search_units": 2}),
    ],
)
def test_an_answer_of_cohere_that_does_not_say_what_it_used_is_estimated(
    stub: Stub,
    meterline: Meterline,
    cohere: Any,
    method: str,
    kwargs: dict[str, Any],
    expected: dict[str, int],
) -> None:
    stub.change = without_usage
    getattr(cohere, method)(model="m", **kwargs, **USER)
    record = recorded(stub, meterline)
    assert record["estimated"] is True
    response = record["response"]
    assert (response.get("usage") or response["meta"])["billed_units"] == expected


def test_embeddings_of_google_do_not_say_what_they_used(
    stub: Stub, meterline: Meterline, google_client: Any
) -> None:
    google_client.models.embed_content(model="gemini-embedding-001", contents="Say hello", **USER)
    record = recorded(stub, meterline)
    assert record["estimated"] is True
    assert record["modelId"] == "gemini-embedding-001"
    assert record["response"]["usageMetadata"]["promptTokenCount"] == 3
