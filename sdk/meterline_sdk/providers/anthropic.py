"""Anthropic: messages."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

from meterline_sdk.providers.shape import (
    Body,
    Method,
    Methods,
    Seen,
    picked,
    plain,
)
from meterline_sdk.providers.sizes import Kwargs, tokens_of, tokens_sent, written

_MESSAGE = ("id", "type", "model", "usage")


def _body(result: Any, kwargs: Kwargs) -> Body | None:
    found = {"model": kwargs.get("model"), **picked(result, *_MESSAGE)}
    return found if "usage" in found else None


def _watch(seen: Seen, event: Any) -> None:
    kind = getattr(event, "type", None)
    if kind == "message_start":
        seen.body.update(picked(event.message, *_MESSAGE))
    elif kind == "content_block_delta":
        delta = event.delta
        for name in ("text", "partial_json", "thinking"):
            seen.text += len(getattr(delta, name, None) or "")
    elif kind == "message_delta" and getattr(event, "usage", None) is not None:
        # Figures are cumulative; what is left out keeps its earlier value.
        seen.body["usage"] = {**seen.body.get("usage", {}), **plain(event.usage)}
        seen.final = True


def _gather(seen: Seen, stream: Any) -> None:
    # Before the first event there is no snapshot, which the package only asserts.
    with suppress(AssertionError, AttributeError):
        message = stream.current_message_snapshot
        seen.body.update(picked(message, *_MESSAGE))
        seen.text = written(message)
        seen.final = message.stop_reason is not None


def _guess(seen: Seen, kwargs: Kwargs) -> Body:
    # The beginning of the stream has told the input already.
    used = {"input_tokens": tokens_sent(kwargs), **seen.body.get("usage", {})}
    used["output_tokens"] = max(used.get("output_tokens") or 0, tokens_of(seen.text))
    model = {"model": kwargs.get("model"), "type": "message"}
    return {**model, **seen.body, "usage": used}


_MESSAGES = Method("call", _body, _watch, _guess)
_PARSED = replace(_MESSAGES, parses=True)
_STREAM = Method("manager", _body, _watch, _guess, gather=_gather)

METHODS: Methods = {
    "messages.create": _MESSAGES,
    "messages.parse": _PARSED,
    "messages.stream": _STREAM,
    "beta.messages.create": _MESSAGES,
    "beta.messages.parse": _PARSED,
    "beta.messages.stream": _STREAM,
}
