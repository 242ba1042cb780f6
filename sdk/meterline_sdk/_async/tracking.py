"""What is asked before a provider's call, and told after it."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from meterline_sdk._async._meterline import AsyncMeterline
from meterline_sdk._json import body
from meterline_sdk.models import Decision
from meterline_sdk.providers.bounds import bound_of
from meterline_sdk.providers.shape import Body, Method, Seen
from meterline_sdk.providers.sizes import Kwargs, characters, written

logger = logging.getLogger("meterline_sdk")

Used = tuple[Body, bool]
"""What a call used, and whether that is a guess."""

_ESTIMATES = ("tokens", "cost_usd", "credits")


@dataclass(slots=True)
class Call:
    """One call of a provider on behalf of a subject; `allowed` is what the check answered."""

    id: str
    subject: str
    track: Mapping[str, Any]
    kwargs: Kwargs
    injected: bool
    method: Method
    allowed: Decision | None = None


class AsyncTracker:
    """Asks Meterline before calls, and tells it afterwards. See `AsyncTrackedOpenAI`."""

    def __init__(
        self,
        meterline: AsyncMeterline,
        provider: str,
        *,
        check: bool = True,
        reserve: bool = False,
        hold_seconds: int = 900,
        output_tokens: int = 4_096,
    ) -> None:
        if reserve and not check:
            raise ValueError("reserve needs check: the check is what sets something aside")
        self._meterline = meterline
        self._provider = provider
        self._check = check
        self._reserve = reserve
        self._hold_seconds = hold_seconds
        self._output_tokens = output_tokens

    async def before(self, call: Call) -> None:
        """Raises `UsageLimitError`, `RateLimitError`, `BannedError` when it must not be made."""
        if not self._check:
            return
        estimate = dict(call.track.get("estimate") or {})
        unknown = set(estimate).difference(_ESTIMATES)
        if unknown:
            raise TypeError(f"an estimate has {', '.join(_ESTIMATES)}, not {', '.join(unknown)}")
        if self._reserve:
            estimate = await self._most(call, estimate)
        call.allowed = await self._meterline.require(
            call.subject,
            model=call.kwargs.get("model"),
            hold_seconds=self._hold_seconds if self._reserve else None,
            **estimate,
        )

    async def _most(self, call: Call, estimate: dict[str, Any]) -> dict[str, Any]:
        """What to set aside: the caller's estimate, or the most that the call can use."""
        if "credits" in estimate:
            raise ValueError("credits are reserved and charged by capture_usage, not by reserve")
        bound = bound_of(call.kwargs, self._output_tokens if call.method.answers else 0)
        model = call.kwargs.get("model")
        if "cost_usd" not in estimate and isinstance(model, str):
            cost = await self._meterline.estimate_cost(
                model,
                provider=self._provider,
                input_tokens=bound.input,
                output_tokens=bound.output,
            )
            if cost is not None:
                estimate["cost_usd"] = cost
        return {"tokens": bound.tokens, **estimate}

    def unused(self, call: Call) -> None:
        """The call failed: give back what was set aside; returns at once."""
        if call.allowed is not None and call.allowed.holds:
            try:
                self._meterline.give_back(call.subject, call.allowed.holds)
            except Exception as error:
                # The caller shall see why the call failed. What is set aside expires by itself.
                logger.error("what a call set aside was not given back: %s", error)

    def failed(self, call: Call, error: BaseException) -> None:
        """The call raised; returns at once."""
        if call.method.parses and _unreadable(error):
            self._record(call, lambda: _guess(call, Seen(text=_unread(error))))
        else:
            self.unused(call)

    def answered(self, call: Call, result: Any) -> None:
        """Record what a whole answer used; returns at once."""

        def used() -> Used:
            said = call.method.body(result, call.kwargs)
            return _guess(call, Seen(text=written(result))) if said is None else (said, False)

        self._record(call, used)

    def streamed(self, call: Call, seen: Seen) -> None:
        """Record what a stream used, of which so much has been seen; returns at once."""
        self._record(call, lambda: (seen.body, False) if seen.final else _guess(call, seen))

    def _record(self, call: Call, used: Callable[[], Used]) -> None:
        """Nothing is raised: the answer is paid, and its caller gets it whatever happens here."""
        record: dict[str, Any] = {
            "provider": self._provider,
            "id": call.id,
            "tags": call.track.get("tags"),
            "conversation_id": call.track.get("conversation_id"),
            "check_id": None if call.allowed is None else call.allowed.check_id,
        }
        try:
            response, estimated = used()
            record["model_id"] = _asked_model(call, response)
            record |= {"response": response, "estimated": estimated}
            self._meterline.record_response(call.subject, **record)
        except Exception as error:
            self._drop({"path": "/api/v1/track", "body": body(key=call.subject, **record)}, error)

    def _drop(self, lost: Mapping[str, Any], error: Exception) -> None:
        try:
            self._meterline.records._on_drop([lost], error)
        except Exception:
            logger.exception("what a call used was lost, and on_drop failed: %s", lost)


def _asked_model(call: Call, response: Body) -> str | None:
    """The model that was asked for, where the answer does not say which one it was."""
    asked = call.kwargs.get("model")
    said = call.method.names_model or "modelVersion" in response
    return None if said or not isinstance(asked, str) else asked


def _guess(call: Call, seen: Seen) -> Used:
    return call.method.guess(seen, call.kwargs), True


def _unreadable(error: BaseException) -> bool:
    """Whether there was an answer which only could not be read: pydantic says that."""
    return any(kind.__name__ == "ValidationError" for kind in type(error).__mro__)


def _unread(error: Any) -> int:
    """How many characters could not be read, at least: what the error quotes."""
    return max(characters(one["input"]) for one in error.errors())
