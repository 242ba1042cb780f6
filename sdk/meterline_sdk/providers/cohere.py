"""Cohere: chat, embed and rerank of the second API."""

from typing import Any

from meterline_sdk.providers.shape import (
    Body,
    Method,
    Methods,
    Seen,
    picked,
    plain,
)
from meterline_sdk.providers.sizes import Kwargs, characters, tokens_of, tokens_sent

_DELTAS = ("content-delta", "tool-plan-delta", "tool-call-start", "tool-call-delta")
_EMBEDDINGS: Body = {"embeddings": {}}
"""That there are some, and not what they are: it tells embeddings from a text."""


def _chat_body(result: Any, kwargs: Kwargs) -> Body | None:
    found = picked(result, "id", "usage")
    return found if "usage" in found else None


def _rerank_body(result: Any, kwargs: Kwargs) -> Body | None:
    found = picked(result, "id", "meta")
    return found if "meta" in found else None


def _embed_body(result: Any, kwargs: Kwargs) -> Body | None:
    found = _rerank_body(result, kwargs)
    return None if found is None else {**_EMBEDDINGS, **found}


def _watch(seen: Seen, event: Any) -> None:
    kind = getattr(event, "type", None)
    if kind == "message-start" and getattr(event, "id", None):
        seen.body["id"] = event.id
    elif kind in _DELTAS:
        seen.text += characters(plain(event.delta))
    elif kind == "message-end" and getattr(event.delta, "usage", None) is not None:
        seen.body["usage"] = plain(event.delta.usage)
        seen.final = True


def _guess(seen: Seen, kwargs: Kwargs) -> Body:
    used = {
        "input_tokens": tokens_sent(kwargs),
        "output_tokens": tokens_of(seen.text),
    }
    return {**seen.body, "usage": {"billed_units": used, "tokens": used}}


def _guess_embed(seen: Seen, kwargs: Kwargs) -> Body:
    used = {"input_tokens": tokens_sent(kwargs)}
    return {**_EMBEDDINGS, "meta": {"billed_units": used}}


def _guess_rerank(seen: Seen, kwargs: Kwargs) -> Body:
    # A search is one query with up to a hundred documents.
    count = -(-len(kwargs.get("documents") or ()) // 100)
    return {"meta": {"billed_units": {"search_units": max(count, 1)}}}


_CHAT = Method("call", _chat_body, _watch, _guess, names_model=False)
_STREAM = Method("stream", _chat_body, _watch, _guess, names_model=False)
_EMBED = Method("call", _embed_body, _watch, _guess_embed, answers=False, names_model=False)
_RERANK = Method("call", _rerank_body, _watch, _guess_rerank, answers=False, names_model=False)

METHODS: Methods = {
    "chat": _CHAT,
    "chat_stream": _STREAM,
    "embed": _EMBED,
    "rerank": _RERANK,
}
