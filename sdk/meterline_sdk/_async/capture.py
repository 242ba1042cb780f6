"""Credits around any function: start a transaction, run it, read what it used, complete."""

import functools
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, Generic, Literal, Self, TypeVar

from meterline_sdk._async._meterline import AsyncMeterline
from meterline_sdk.errors import MeterlineError, UsageLimitError
from meterline_sdk.tokens import Tokens, tokens_of_result

logger = logging.getLogger("meterline_sdk")

Result = TypeVar("Result")

Status = Literal[
    "start_failed",
    "insufficient_credits",
    "executed_success",
    "executed_error",
    "execution_error_completion_failed",
]


@dataclass(frozen=True, slots=True)
class AsyncCaptured(Generic[Result]):
    """What became of a captured call.

    `start_failed`: nobody could be asked, the function did not run. `insufficient_credits`: it did
    not run. `executed_success`: it ran and was charged; with an `error` what it used could not be
    read, and the provisional tokens were charged. `executed_error`: it raised, and nothing was
    charged. `execution_error_completion_failed`: it ran, or raised, and the transaction could not
    be completed; it expires, and gives its hold back.
    """

    status: Status
    result: Result | None = None
    error: BaseException | None = None
    transaction_id: str | None = None
    credits_used: Decimal | None = None
    balance: Decimal | None = None


class AsyncCapture:
    """A transaction as a `with` block: put what was used into `tokens` before it ends.

    Raises `UsageLimitError` at the start when there are not enough credits. A block that raises
    is charged nothing.
    """

    def __init__(
        self,
        meterline: AsyncMeterline,
        user_id: str,
        model: str,
        *,
        provisional: Tokens | None = None,
        feature_identifier: str | None = None,
    ) -> None:
        self._meterline = meterline
        self._user_id = user_id
        self._model = model
        self._provisional = provisional or Tokens()
        self._feature = feature_identifier
        self.transaction_id = ""
        self.tokens: Tokens | None = None
        self.credits_used: Decimal | None = None
        self.balance: Decimal | None = None

    async def __aenter__(self) -> Self:
        started = await self._meterline.transactions.start(
            self._user_id,
            self._model,
            input_tokens=self._provisional.input_tokens,
            output_tokens=self._provisional.output_tokens,
            feature_identifier=self._feature,
        )
        self.balance = started.balance
        if not started.continue_:
            problem = {"limitType": "credits", "current": started.balance}
            message = started.message or "not enough credits"
            raise UsageLimitError(402, "Payment Required", message, "about:blank", problem, {})
        self.transaction_id = started.transaction_id
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        used = self.tokens or (self._provisional if error is None else Tokens())
        done = await self._meterline.transactions.complete(
            self.transaction_id,
            success=error is None,
            input_tokens=used.input_tokens,
            output_tokens=used.output_tokens,
            cached_tokens=used.cached_tokens,
        )
        self.credits_used, self.balance = done.credits_used, done.balance


async def async_capture_usage(
    meterline: AsyncMeterline,
    user_id: str,
    model: str,
    function: Callable[[], Awaitable[Result]],
    *,
    provisional: Tokens | None = None,
    feature_identifier: str | None = None,
    read_tokens: Callable[[Any], Tokens | None] = tokens_of_result,
    rethrow_on_error: bool = False,
) -> AsyncCaptured[Result]:
    """Run a function that costs credits, and say what became of it.

    `read_tokens` finds what was used in the function's result; the default knows the answers of
    OpenAI, Anthropic, Cohere and Google. When it finds nothing, or fails, `provisional` is charged.
    With `rethrow_on_error` what the function raised is raised again, after the transaction.
    """
    capture = AsyncCapture(
        meterline,
        user_id,
        model,
        provisional=provisional,
        feature_identifier=feature_identifier,
    )
    try:
        await capture.__aenter__()
    except UsageLimitError as refusal:
        return AsyncCaptured("insufficient_credits", error=refusal, balance=capture.balance)
    except MeterlineError as failure:
        return AsyncCaptured("start_failed", error=failure)
    result: Result | None = None
    raised: BaseException | None = None
    try:
        result = await function()
    except Exception as error:
        raised = error
    failed = raised or _read(capture, read_tokens, result)
    status: Status = "executed_success" if raised is None else "executed_error"
    try:
        await capture.__aexit__(type(raised) if raised else None, raised, None)
    except Exception as error:
        # Whatever it is, the function's result is the caller's.
        status, failed = "execution_error_completion_failed", failed or error
    if raised is not None and rethrow_on_error:
        raise raised
    return AsyncCaptured(
        status, result, failed, capture.transaction_id, capture.credits_used, capture.balance
    )


def _read(
    capture: AsyncCapture, read_tokens: Callable[[Any], Tokens | None], result: Any
) -> Exception | None:
    """Note what was used. What goes wrong here does not make the call a free one."""
    try:
        capture.tokens = read_tokens(result)
    except Exception as error:
        logger.warning(
            "what was used cannot be read, so that the provisional is charged: %r", error
        )
        return error
    return None


def async_captured(
    meterline: AsyncMeterline,
    model: str,
    *,
    user_id: Callable[..., str],
    **options: Any,
) -> Callable[[Callable[..., Awaitable[Result]]], Callable[..., Awaitable[AsyncCaptured[Result]]]]:
    """As a decorator: `user_id` finds the subject in the function's arguments."""

    def decorate(
        function: Callable[..., Awaitable[Result]],
    ) -> Callable[..., Awaitable[AsyncCaptured[Result]]]:
        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> AsyncCaptured[Result]:
            return await async_capture_usage(
                meterline,
                user_id(*args, **kwargs),
                model,
                lambda: function(*args, **kwargs),
                **options,
            )

        return run

    return decorate
