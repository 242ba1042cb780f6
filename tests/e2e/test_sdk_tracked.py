"""Tracked clients, made of the providers' real packages, against a real server."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from meterline_sdk import Meterline, RateLimitError, UsageLimitError
from meterline_sdk.capture import Tokens, capture_usage, captured
from meterline_sdk.tracked import (
    TrackedAnthropic,
    TrackedCohere,
    TrackedGoogle,
    TrackedOpenAI,
)
from tests.sdk.providers import WORDS, Stub, serving
from tests.sdk.racing import ASKED, CALL, race
from tests.support.server import MeterlineServer, eventually


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as running:
        yield running


@pytest.fixture
def meterline(server: MeterlineServer) -> Iterator[Meterline]:
    with Meterline(server.url) as client:
        yield client


@pytest.fixture
def openai(stub: Stub, meterline: Meterline) -> Iterator[Any]:
    with TrackedOpenAI(meterline, api_key="k", base_url=f"{stub.url}/v1") as client:
        yield client


def ask(openai: Any, subject: str, **options: Any) -> Any:
    return openai.chat.completions.create(
        model="gpt-4o", messages=ASKED, user_id=subject, **options
    )


def test_a_call_is_priced_to_the_digit(meterline: Meterline, openai: Any) -> None:
    ask(openai, "trk-ann", track={"tags": ["beta"], "conversation_id": "c-1"})
    assert meterline.records.flush()
    # 7 tokens at 2.50, 4 cached ones at 1.25, 7 of output at 10 dollars a million
    cost = Decimal("0.0000925")
    totals = meterline.plans.summary("trk-ann", wait=True).total
    assert (totals.cost_usd, totals.requests, totals.tokens) == (cost, 1, CALL)
    assert (totals.input_tokens, totals.cached_tokens, totals.output_tokens) == (11, 4, 7)
    for slug, value in (("meterline_cost_usd", cost), ("meterline_tokens", CALL)):
        (row,) = meterline.meters.query(slug, subject="trk-ann").data
        assert row.value == value
    (record,) = meterline.usage.list(account_id="trk-ann")
    assert (record.provider, record.model_id, record.cost_usd) == (
        "openai", "gpt-4o-2024-08-06", cost,
    )  # fmt: skip
    assert (record.tags, record.conversation_id, record.estimated) == (["beta"], "c-1", False)


def test_the_other_providers(stub: Stub, meterline: Meterline) -> None:
    local = {"api_key": "k", "base_url": stub.url}
    with TrackedAnthropic(meterline, **local) as anthropic:
        anthropic.messages.create(
            model="claude-haiku-4-5", max_tokens=50, messages=ASKED, user_id="trk-anthropic"
        )
    with TrackedCohere(meterline, **local) as cohere:
        for _ in cohere.chat_stream(model="command-r", messages=ASKED, user_id="trk-cohere"):
            pass
    with TrackedGoogle(meterline, api_key="k", http_options={"base_url": stub.url}) as google:
        google.models.generate_content(
            model="gemini-2.5-flash", contents="Say hello", user_id="trk-google"
        )
    assert meterline.records.flush()
    expected = {
        "anthropic": (14, 8, "claude-haiku-4-5"),
        "cohere": (6, 5, "command-r"),
        "google": (10, 12, "gemini-2.5-flash"),
    }
    for provider, (given, taken, model) in expected.items():
        (record,) = meterline.usage.list(account_id=f"trk-{provider}", wait=True)
        assert (record.input_tokens, record.output_tokens) == (given, taken)
        assert (record.provider, record.model_id) == (provider, model)
        assert record.priced == "catalogue" and record.cost_usd


def test_limits_bite(meterline: Meterline, openai: Any) -> None:
    meterline.plans.create("trk-small", monthly_token_limit=30)
    meterline.plans.assign("trk-bob", "trk-small")
    for _ in range(2):
        ask(openai, "trk-bob")
        assert meterline.records.flush()
        meterline.entitlements.value("trk-bob", "meterline_tokens", wait=True)
    with pytest.raises(UsageLimitError) as caught:
        ask(openai, "trk-bob")
    error = caught.value
    assert (error.status, error.limit_type) == (402, "monthlyTokenLimit")
    # The second call passed the limit: the check before it could not know what it would use.
    assert (error.current, error.limit) == (Decimal(2 * CALL), Decimal(30))
    meterline.plans.create("trk-slow", requests_per_minute=1)
    meterline.plans.assign("trk-cat", "trk-slow")
    ask(openai, "trk-cat")
    with pytest.raises(RateLimitError) as slow:
        ask(openai, "trk-cat")
    assert (slow.value.limit_type, slow.value.limit, slow.value.current) == (
        "requestsPerMinute", Decimal(1), Decimal(1),
    )  # fmt: skip
    assert slow.value.retry_after is not None and 0 < slow.value.retry_after <= 60


def test_a_dropped_stream_is_marked(meterline: Meterline, openai: Any) -> None:
    stream = ask(openai, "trk-dan", stream=True)
    assert next(iter(stream)).choices[0].delta.content == WORDS[0]
    stream.close()
    assert meterline.records.flush()
    (record,) = meterline.usage.list(account_id="trk-dan", wait=True)
    assert record.estimated
    assert (record.input_tokens, record.output_tokens) == (6, 2)
    assert record.cost_usd == Decimal("0.000035")


def test_captured_usage_is_charged_by_the_rate_table(meterline: Meterline) -> None:
    meterline.credit_rates.replace("trk-model", 2_000_000, 3_000_000, cached_rate=1_000_000)
    meterline.credits.add("trk-eve", 100)
    answer = {
        "usage": {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
    }
    found = capture_usage(
        meterline, "trk-eve", "trk-model", lambda: answer, provisional=Tokens(20, 10)
    )
    assert found.status == "executed_success"
    assert (found.credits_used, found.balance) == (Decimal(31), Decimal(69))

    @captured(meterline, "trk-model", user_id=lambda user: str(user), provisional=Tokens(30, 0))
    def fails(user: str) -> None:
        raise RuntimeError(user)

    assert fails("trk-eve").status == "executed_error"
    assert meterline.credits.get("trk-eve").available == 69
    refused = capture_usage(
        meterline, "trk-eve", "trk-model", lambda: pytest.fail("it ran"), provisional=Tokens(35, 0)
    )
    assert refused.status == "insufficient_credits"
    meterline.entitlements.value("trk-eve", "credits", wait=True)
    (row,) = meterline.meters.query("meterline_credits", subject="trk-eve").data
    assert row.value == 31


def test_reserved_calls_never_pass_a_hard_limit(
    server: MeterlineServer, stub: Stub, meterline: Meterline
) -> None:
    meterline.plans.create("trk-hard", monthly_token_limit=10 * CALL + 5)
    meterline.plans.assign("trk-hal", "trk-hard")
    made = race([server.url], stub, "trk-hal", 32, reserve=True)
    assert made == 10
    used = meterline.plans.summary("trk-hal", wait=True).current_month.tokens
    assert used == 10 * CALL  # the overshoot is 0
    # What was set aside went back: all of the limit is usage now.
    eventually(
        lambda: meterline.entitlements.value("trk-hal", "meterline_tokens", wait=True).held == 0,
        "the holds are given back",
    )
    assert meterline.check("trk-hal", tokens=5).allowed
    assert not meterline.check("trk-hal", tokens=6).allowed


def test_without_a_reservation_calls_in_flight_are_not_seen(
    server: MeterlineServer, stub: Stub, meterline: Meterline
) -> None:
    """The control, and what the documentation says: each check fits by itself."""
    meterline.plans.create("trk-soft", monthly_token_limit=10 * CALL)
    meterline.plans.assign("trk-ida", "trk-soft")
    assert race([server.url], stub, "trk-ida", 32) == 32
    used = meterline.plans.summary("trk-ida", wait=True).current_month.tokens
    assert used == 32 * CALL


def test_a_failed_call_gives_its_reservation_back(
    server: MeterlineServer, stub: Stub, meterline: Meterline
) -> None:
    meterline.plans.create("trk-once", monthly_token_limit=300, monthly_cost_limit_usd=1)
    meterline.plans.assign("trk-joe", "trk-once")
    with TrackedOpenAI(
        meterline, api_key="k", base_url=f"{stub.url}/v1", max_retries=0, reserve=True
    ) as openai:
        for _ in range(2):  # a second one fits only when the first one's went back
            stub.failures = 1
            with pytest.raises(Exception, match="not now"):
                ask(openai, "trk-joe", max_tokens=50)
            stub.failures = 0
            assert meterline.records.flush()
        ask(openai, "trk-joe", max_tokens=50)
    decision = meterline.check("trk-joe", dry_run=True)
    assert {one.limit_type for one in decision.limits} == {
        "monthlyTokenLimit", "monthlyCostLimitUsd",
    }  # fmt: skip
