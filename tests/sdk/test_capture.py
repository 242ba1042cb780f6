import json
from decimal import Decimal
from typing import Any

import httpx2
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


class Ledger:
    """Starts and completes transactions."""

    def __init__(self) -> None:
        self.completed: list[dict[str, Any]] = []
        self.allow = True
        self.down: set[str] = set()

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(request.content)
        step = "complete" if request.url.path.endswith("/complete") else "start"
        if step in self.down:
            return httpx2.Response(503, content=b"{}")
        if step == "start":
            self.started = body
            found = {"transactionId": "t-1", "continue": self.allow, "balance": 9.5}
            return httpx2.Response(200, content=json.dumps(found).encode())
        self.completed.append(body)
        found = {"creditsUsed": 2.25, "balance": 7.25, "balanceAdjustment": 0}
        return httpx2.Response(200, content=json.dumps(found).encode())

    def client(self) -> Meterline:
        http = httpx2.Client(transport=httpx2.MockTransport(self.answer))
        return Meterline("http://test", retries=RetryPolicy(0), http_client=http)


RESULT = {"usage": {"prompt_tokens": 10, "completion_tokens": 5}}


def test_a_call_is_charged_for_what_it_used() -> None:
    ledger = Ledger()
    found = capture_usage(
        ledger.client(), "alice", "gpt-4o", lambda: RESULT, provisional=Tokens(100, 50)
    )
    assert (found.status, found.result) == ("executed_success", RESULT)
    assert (found.credits_used, found.balance) == (Decimal("2.25"), Decimal("7.25"))
    assert ledger.started["provisionalTokens"] == {"inputTokens": 100, "outputTokens": 50}
    assert ledger.completed == [
        {"success": True, "finalizedTokens": {"inputTokens": 10, "outputTokens": 5}}
    ]


def test_without_credits_it_does_not_run() -> None:
    ledger = Ledger()
    ledger.allow = False
    found = capture_usage(ledger.client(), "alice", "gpt-4o", lambda: pytest.fail("it ran"))
    assert found.status == "insufficient_credits"
    assert found.balance == Decimal("9.5")


def test_without_a_server_it_does_not_run() -> None:
    ledger = Ledger()
    ledger.down = {"start"}
    found = capture_usage(ledger.client(), "alice", "gpt-4o", lambda: pytest.fail("it ran"))
    assert found.status == "start_failed"


def failing() -> Any:
    raise ValueError("no")


def test_a_failure_is_charged_nothing() -> None:
    ledger = Ledger()
    found = capture_usage(ledger.client(), "alice", "gpt-4o", failing)
    assert (found.status, str(found.error)) == ("executed_error", "no")
    assert ledger.completed == [{"success": False}]
    with pytest.raises(ValueError, match="no"):
        capture_usage(ledger.client(), "alice", "gpt-4o", failing, rethrow_on_error=True)


@pytest.mark.parametrize("function", [lambda: RESULT, failing])
def test_a_completion_that_fails_is_told(function: Any) -> None:
    ledger = Ledger()
    ledger.down = {"complete"}
    found = capture_usage(ledger.client(), "alice", "gpt-4o", function)
    assert found.status == "execution_error_completion_failed"
    assert found.error is not None


def test_the_decorator_and_the_block() -> None:
    ledger = Ledger()
    client = ledger.client()

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


async def test_the_asynchronous_one() -> None:
    ledger = Ledger()

    async def answer(request: httpx2.Request) -> httpx2.Response:
        return ledger.answer(request)

    async def work() -> dict[str, Any]:
        return RESULT

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer))
    async with AsyncMeterline("http://test", http_client=http) as client:
        found = await async_capture_usage(client, "alice", "gpt-4o", work)
    assert found.status == "executed_success"
    await http.aclose()


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
        ({"text": "no usage"}, None),
        ("text", None),
    ],
)
def test_what_answers_say(result: Any, tokens: Tokens | None) -> None:
    assert tokens_of_result(result) == tokens
