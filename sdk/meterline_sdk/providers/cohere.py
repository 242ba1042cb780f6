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
    found = picked(result, "id", "usage")
    return found if "usage" in found else None


def _meta_body(result: Any, kwargs: Kwargs) -> Body | None:
    found = picked(result, "id", "meta")
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
    return {**seen.body, "usage": {"billed_units": used, "tokens": used}}


_CHAT = Method("call", _chat_body, _watch, _guess, names_model=False)
_STREAM = Method("stream", _chat_body, _watch, _guess, names_model=False)
_META = Method("call", _meta_body, _watch, _guess, answers=False, names_model=False)

METHODS: Methods = {
    "chat": _CHAT,
    "chat_stream": _STREAM,
    "embed": _META,
    "rerank": _META,
}
