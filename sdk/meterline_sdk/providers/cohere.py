"""Cohere: chat, embed and rerank of the second API."""

from typing import Any

from meterline_sdk.providers.shape import (
    Body,
    Kwargs,
    Method,
    Methods,
    Seen,
    characters,
    picked,
    plain,
    tokens_of,
)


def _chat_body(result: Any, kwargs: Kwargs) -> Body | None:
    # An answer does not say which model gave it.
    found = {"model": kwargs.get("model"), **picked(result, "id", "usage")}
    return found if "usage" in found else None


def _meta_body(result: Any, kwargs: Kwargs) -> Body | None:
    found = {"model": kwargs.get("model"), **picked(result, "id", "meta")}
    return found if "meta" in found else None


def _watch(seen: Seen, event: Any) -> None:
    kind = getattr(event, "type", None)
    if kind == "message-start" and getattr(event, "id", None):
        seen.body["id"] = event.id
    elif kind == "content-delta":
        content = getattr(getattr(event.delta, "message", None), "content", None)
        seen.text += len(getattr(content, "text", None) or "")
    elif kind == "message-end" and getattr(event.delta, "usage", None) is not None:
        seen.body["usage"] = plain(event.delta.usage)
        seen.final = True


def _guess(seen: Seen, kwargs: Kwargs) -> Body:
    used = {
        "input_tokens": tokens_of(characters(kwargs.get("messages"))),
        "output_tokens": tokens_of(seen.text),
    }
    return {
        "model": kwargs.get("model"),
        **seen.body,
        "usage": {"billed_units": used, "tokens": used},
    }


_CHAT = Method("call", _chat_body, _watch, _guess)
_STREAM = Method("stream", _chat_body, _watch, _guess)
_META = Method("call", _meta_body, _watch, _guess, answers=False)

METHODS: Methods = {
    "chat": _CHAT,
    "chat_stream": _STREAM,
    "embed": _META,
    "rerank": _META,
}
