"""Tracked calls that set aside what they can use, before they are made."""

import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import openai as openai_package
import pytest
from google.genai import types
from pydantic import BaseModel

from meterline_sdk import AsyncMeterline, Meterline, RetryPolicy
from meterline_sdk.providers.bounds import bound_of
from meterline_sdk.tracked import AsyncTrackedOpenAI, TrackedAnthropic, TrackedOpenAI
from tests.sdk.providers import Stub

ASKED = [{"role": "user", "content": "Say hello to my friend"}]
HOLDS = ["c1.meterline_tokens", "c1.meterline_cost_usd"]


@pytest.fixture
def meterline(stub: Stub) -> Iterator[Meterline]:
    with Meterline(stub.url, retries=RetryPolicy(0), buffer={"retry_seconds": 0.01}) as client:
        yield client


@pytest.fixture
def openai(stub: Stub, meterline: Meterline) -> Iterator[Any]:
    with TrackedOpenAI(
        meterline, api_key="k", base_url=f"{stub.url}/v1", max_retries=0, reserve=True
    ) as client:
        yield client


def test_the_most_is_set_aside_and_the_record_names_the_check(
    stub: Stub, meterline: Meterline, openai: Any
) -> None:
    openai.chat.completions.create(model="gpt-4o", messages=ASKED, max_tokens=50, user_id="alice")
    (asked,) = stub.checks
    assert asked["hold"] == {"ttlSeconds": 900}
    assert asked["estimate"]["costUsd"] == 0.25
    assert 22 + 50 < asked["estimate"]["tokens"] < 300
    assert meterline.records.flush()
    assert stub.tracked[0]["checkId"] == "c1"
    assert stub.released == []  # the server gives it back when the usage is counted


def test_the_caller_may_know_better(stub: Stub, openai: Any) -> None:
    estimate = {"tokens": 30, "cost_usd": Decimal("0.01")}
    openai.chat.completions.create(
        model="gpt-4o", messages=ASKED, user_id="alice", track={"estimate": estimate}
    )
    assert stub.checks[0]["estimate"] == {"tokens": 30, "costUsd": 0.01}
    for wrong, error in (({"credits": 1}, ValueError), ({"token": 1}, TypeError)):
        with pytest.raises(error):
            openai.chat.completions.create(
                model="gpt-4o", messages=ASKED, user_id="alice", track={"estimate": wrong}
            )


def test_a_call_that_fails_gives_it_back(stub: Stub, meterline: Meterline, openai: Any) -> None:
    for options in ({}, {"stream": True}):
        stub.failures = 1
        with pytest.raises(openai_package.InternalServerError):
            openai.chat.completions.create(
                model="gpt-4o", messages=ASKED, user_id="alice", **options
            )
    stub.failures = 1
    with (
        pytest.raises(openai_package.InternalServerError),
        openai.chat.completions.stream(model="gpt-4o", messages=ASKED, user_id="alice"),
    ):
        pytest.fail("there is no stream")
    assert meterline.records.flush()  # that they had expired is nobody's trouble
    assert sorted(stub.released) == sorted(HOLDS * 3)  # several threads send
    assert stub.tracked == []


async def test_the_asynchronous_client(stub: Stub) -> None:
    async with (
        AsyncMeterline(stub.url, retries=RetryPolicy(0)) as meterline,
        AsyncTrackedOpenAI(
            meterline, api_key="k", base_url=f"{stub.url}/v1", reserve=True, hold_seconds=60
        ) as openai,
    ):
        await openai.embeddings.create(
            model="text-embedding-3-small", input="hello", encoding_format="float", user_id="alice"
        )
        assert meterline.records.flush()
    assert stub.checks[0]["hold"] == {"ttlSeconds": 60}
    assert stub.checks[0]["estimate"]["tokens"] < 100  # no output
    assert stub.tracked[0]["checkId"] == "c1"


def test_what_reserves_must_ask(meterline: Meterline) -> None:
    with pytest.raises(ValueError, match="check"):
        TrackedAnthropic(meterline, api_key="k", check=False, reserve=True)


def test_records_outlive_an_outage(stub: Stub, meterline: Meterline, openai: Any) -> None:
    openai.chat.completions.create(model="gpt-4o", messages=ASKED, user_id="alice")
    assert meterline.records.flush()
    stub.failures = 5
    meterline.record_response("alice", {"usage": {}}, provider="openai", id="r-1")
    assert meterline.records.flush()
    assert stub.failures < 0
    assert [one["id"] for one in stub.tracked[1:]] == ["r-1"]


def test_records_are_sent_at_the_end_of_the_process(stub: Stub) -> None:
    code = (
        "import sys; from meterline_sdk import Meterline; m = Meterline(sys.argv[1]);"
        "[m.record_response('alice', {'usage': {}}, provider='openai') for _ in range(20)]"
    )
    subprocess.run([sys.executable, "-c", code, stub.url], check=True, timeout=60)
    assert len({one["id"] for one in stub.tracked}) == 20


class Answer(BaseModel):
    """What a model shall answer."""

    city: str


URL = "https://example.org/a.png"
ADDRESSED: tuple[dict[str, Any], ...] = (
    {"messages": [{"content": [{"type": "image_url", "image_url": {"url": URL}}]}]},
    {"input": [{"content": [{"type": "input_image", "image_url": URL}]}]},
    {"input": [{"content": [{"type": "input_file", "file_id": "file-1"}]}]},
    {"messages": [{"content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
    {"messages": [{"content": [{"type": "image", "source": {"type": "url", "url": URL}}]}]},
    {"messages": [{"content": [{"type": "document", "source": {"type": "url", "url": URL}}]}]},
    {"contents": [types.Part.from_uri(file_uri=URL, mime_type="image/png")]},
    {"contents": [{"fileData": {"fileUri": URL}}]},
)
PAPER = {"type": "document", "source": {"type": "text", "data": "x" * 9_000}}
SOUND = {"type": "input_audio", "input_audio": {"data": "A" * 9_000, "format": "wav"}}
SCHEMA = {"name": "x", "parameters": {"type": "object", "properties": {"type": {"type": ["null"]}}}}


@pytest.mark.parametrize(
    ("kwargs", "least", "most", "output"),
    [
        ({"messages": ASKED}, 22, 200, 1_000),
        ({"messages": ASKED, "max_tokens": 7, "n": 3}, 22, 200, 21),
        ({"messages": ASKED, "max_completion_tokens": 9}, 22, 200, 9),
        ({"input": "é" * 100, "max_output_tokens": 0}, 200, 300, 0),
        ({"contents": "hi", "config": {"max_output_tokens": 5}}, 2, 150, 5),
        ({"messages": ASKED, "tools": [{"name": "x" * 500}]}, 522, 800, 1_000),
        ({"messages": ASKED, "response_format": Answer}, 60, 500, 1_000),
        (
            {"messages": [{"content": [{"image_url": {"url": "data:image/png;base64,AAAA"}}]}]},
            4_000,
            4_300,
            1_000,
        ),
        *((given, 4_000, 4_300, 1_000) for given in ADDRESSED),
        ({"messages": [{"content": [PAPER]}]}, 9_000, 9_400, 1_000),
        ({"input": [{"content": [SOUND]}]}, 4_000, 4_300, 1_000),
        ({"tools": [SCHEMA]}, 60, 400, 1_000),
    ],
)
def test_bounds(kwargs: dict[str, Any], least: int, most: int, output: int) -> None:
    bound = bound_of(kwargs, 1_000)
    assert least <= bound.input <= most
    assert bound.output == output
    assert bound.tokens == bound.input + output
