from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from meterline_sdk import AsyncMeterline, Meterline, RetryPolicy, UsageLimitError
from meterline_sdk.capture import (
    Capture,
    Tokens,
    async_capture_usage,
    capture_usage,
    captured,
)
from meterline_sdk.tokens import tokens_of_result
from tests.sdk.loopback import Asked, Reply, loopback


class Ledger:
    """Starts and completes transactions."""

    def __init__(self) -> None:
        self.completed: list[dict[str, Any]] = []
        self.allow = True
        self.down: set[str] = set()
        self.client: Meterline

    def answer(self, asked: Asked) -> Reply:
        step = "complete" if asked.path.endswith("/complete") else "start"
        if step in self.down:
            return Reply(503, {})
        if step == "start":
            self.started = asked.body
            return Reply(200, {"transactionId": "t-1", "continue": self.allow, "balance": 9.5})
        self.completed.append(asked.body)
        return Reply(200, {"creditsUsed": 2.25, "balance": 7.25, "balanceAdjustment": 0})


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    found = Ledger()
    with (
        loopback(found.answer) as server,
        Meterline(server.url, retries=RetryPolicy(0)) as meterline,
    ):
        found.client = meterline
        yield found


RESULT = {"usage": {"prompt_tokens": 10, "completion_tokens": 5}}


def test_a_call_is_charged_for_what_it_used(ledger: Ledger) -> None:
    found = capture_usage(
        ledger.client, "alice", "gpt-4o", lambda: RESULT, provisional=Tokens(100, 50)
    )
    assert (found.status, found.result) == ("executed_success", RESULT)
    assert (found.credits_used, found.balance) == (Decimal("2.25"), Decimal("7.25"))
    assert ledger.started["provisionalTokens"] == {"inputTokens": 100, "outputTokens": 50}
    assert ledger.completed == [
        {"success": True, "finalizedTokens": {"inputTokens": 10, "outputTokens": 5}}
    ]


def test_without_credits_it_does_not_run(ledger: Ledger) -> None:
    ledger.allow = False
    found = capture_usage(ledger.client, "alice", "gpt-4o", lambda: pytest.fail("it ran"))
    assert found.status == "insufficient_credits"
    assert found.balance == Decimal("9.5")


def test_without_a_server_it_does_not_run(ledger: Ledger) -> None:
    ledger.down = {"start"}
    found = capture_usage(ledger.client, "alice", "gpt-4o", lambda: pytest.fail("it ran"))
    assert found.status == "start_failed"


def failing() -> Any:
    raise ValueError("no")


def test_a_failure_is_charged_nothing(ledger: Ledger) -> None:
    found = capture_usage(ledger.client, "alice", "gpt-4o", failing)
    assert (found.status, str(found.error)) == ("executed_error", "no")
    assert ledger.completed == [{"success": False}]
    with pytest.raises(ValueError, match="no"):
        capture_usage(ledger.client, "alice", "gpt-4o", failing, rethrow_on_error=True)


def test_a_result_that_cannot_be_read_is_not_free(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {"usage": {"prompt_tokens": "many"}}
    found = capture_usage(
        ledger.client, "alice", "m", lambda: odd, provisional=Tokens(20, 5), rethrow_on_error=True
    )
    assert (found.status, found.result) == ("executed_success", odd)
    assert isinstance(found.error, ValueError)
    assert found.credits_used == Decimal("2.25")
    assert ledger.completed == [
        {"success": True, "finalizedTokens": {"inputTokens": 20, "outputTokens": 5}}
    ]
    assert "cannot be read" in caplog.text


def test_tokens_that_cannot_be_sent_lose_no_result(ledger: Ledger) -> None:
    odd: Any = Tokens(object())  # type: ignore[arg-type]
    found = capture_usage(ledger.client, "alice", "m", lambda: RESULT, read_tokens=lambda _: odd)
    assert (found.status, found.result) == ("execution_error_completion_failed", RESULT)
    assert isinstance(found.error, TypeError)


@pytest.mark.parametrize("function", [lambda: RESULT, failing])
def test_a_completion_that_fails_is_told(ledger: Ledger, function: Any) -> None:
    ledger.down = {"complete"}
    found = capture_usage(ledger.client, "alice", "gpt-4o", function)
    assert found.status == "execution_error_completion_failed"
    assert found.error is not None


def test_the_decorator_and_the_block(ledger: Ledger) -> None:
    client = ledger.client

    @captured(client, "gpt-4o", user_id=lambda user, _: str(user))
    def ask(user: str, text: str) -> dict[str, Any]:
        """Ask."""
        return {**RESULT, "text": text}

    found = ask("bob", "hi")
    assert found.result is not None
    assert found.result["text"] == "hi"
    assert (ledger.started["userId"], ask.__doc__) == ("bob", "Ask.")
    with Capture(client, "alice", "gpt-4o") as capture:
        capture.tokens = Tokens(3, 4)
    assert ledger.completed[-1]["finalizedTokens"] == {"inputTokens": 3, "outputTokens": 4}
    ledger.allow = False
    with pytest.raises(UsageLimitError), Capture(client, "alice", "gpt-4o"):
        pytest.fail("it ran")


async def test_the_asynchronous_one(ledger: Ledger) -> None:

    async def work() -> dict[str, Any]:
        return RESULT

    async with AsyncMeterline(ledger.client.transport.base_url) as client:
        found = await async_capture_usage(client, "alice", "gpt-4o", work)
    assert found.status == "executed_success"


@pytest.mark.parametrize(
    ("result", "tokens"),
    [
        ({"usage": {"input_tokens": 9, "output_tokens": 8}}, Tokens(9, 8)),
        (
            {
                "usage": {
                    "input_tokens": 9,
                    "cache_read_input_tokens": 2,
                    "cache_creation_input_tokens": 3,
                    "output_tokens": 8,
                }
            },
            Tokens(14, 8, 2),
        ),
        (
            {
                "usage": {
                    "prompt_tokens": 11,
                    "completion_tokens": 7,
                    "prompt_tokens_details": {"cached_tokens": 4},
                }
            },
            Tokens(11, 7, 4),
        ),
        (
            {"usage": {"billed_units": {"input_tokens": 6.0, "output_tokens": 5.0}}},
            Tokens(6, 5),
        ),
        (
            {
                "usage_metadata": {
                    "prompt_token_count": 10,
                    "candidates_token_count": 9,
                    "thoughts_token_count": 3,
                }
            },
            Tokens(10, 12),
        ),
        (
            {
                "usageMetadata": {
                    "promptTokenCount": 10,
                    "toolUsePromptTokenCount": 5,
                    "cachedContentTokenCount": 4,
                    "candidatesTokenCount": 9,
                    "thoughtsTokenCount": 3,
                }
            },
            Tokens(15, 12, 4),
        ),
        ({"meta": {"billed_units": {"input_tokens": 3.0}}}, Tokens(3, 0)),
        ({"meta": {"billed_units": {"image_tokens": 7, "input_tokens": 3}}}, Tokens(10, 0)),
        ({"meta": {"billed_units": {"search_units": 1}}}, None),
        ({"meta": {"api_version": {"version": "2"}}}, None),
        ({"text": "no usage"}, None),
        ("text", None),
    ],
)
def test_what_answers_say(result: Any, tokens: Tokens | None) -> None:
    assert tokens_of_result(result) == tokens
