"""OpenAI: chat completions, responses, embeddings."""

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

_CHAT = ("id", "object", "model", "service_tier", "usage")
_RESPONSE = ("id", "object", "model", "service_tier", "usage", "tool_usage")


def _chat_body(result: Any, kwargs: Kwargs) -> Body | None:
    found = {"model": kwargs.get("model"), **picked(result, *_CHAT)}
    # A helper's snapshot has no `object` of its own.
    found.setdefault("object", "chat.completion")
    return found if "usage" in found else None


def _ask_for_usage(kwargs: Kwargs) -> tuple[Kwargs, bool]:
    options = kwargs.get("stream_options")
    asked = options.get("include_usage") if isinstance(options, dict) else None
    if asked is not None:
        return kwargs, False
    given = dict(options) if isinstance(options, dict) else {}
    return {**kwargs, "stream_options": {**given, "include_usage": True}}, True


def _prepare_chat(kwargs: Kwargs) -> tuple[Kwargs, bool]:
    return _ask_for_usage(kwargs) if kwargs.get("stream") else (kwargs, False)


def _watch_chat(seen: Seen, chunk: Any) -> None:
    # A helper's events hold the chunk.
    chunk = getattr(chunk, "chunk", chunk)
    if not hasattr(chunk, "choices"):
        return
    seen.body.update(picked(chunk, "id", "model", "service_tier"))
    for choice in chunk.choices or ():
        delta = choice.delta
        if delta is None:
            continue
        seen.text += len(delta.content or "") + len(getattr(delta, "refusal", None) or "")
        for call in delta.tool_calls or ():
            if call.function is not None:
                seen.text += len(call.function.arguments or "")
    usage = getattr(chunk, "usage", None)
    if usage is not None:
        seen.body.update(object="chat.completion", usage=plain(usage))
        seen.final = True


def _guess_chat(seen: Seen, kwargs: Kwargs) -> Body:
    used = {
        "prompt_tokens": tokens_sent(kwargs),
        "completion_tokens": tokens_of(seen.text),
    }
    total = {"total_tokens": sum(used.values())}
    model = {"model": kwargs.get("model"), "object": "chat.completion"}
    return {**model, **seen.body, "usage": {**used, **total}}


def _gather_chat(seen: Seen, stream: Any) -> None:
    # Before the first chunk there is no snapshot, which the package only asserts.
    with suppress(AssertionError, AttributeError):
        snapshot = stream.current_completion_snapshot
        seen.body.update(picked(snapshot, "id", "model", "service_tier", "usage"))
        seen.body["object"] = "chat.completion"
        seen.text = written(snapshot)
        seen.final = snapshot.usage is not None


def _only_usage(chunk: Any) -> bool:
    chunk = getattr(chunk, "chunk", chunk)
    choices = getattr(chunk, "choices", None)
    return choices == [] and getattr(chunk, "usage", None) is not None


def _response_body(result: Any, kwargs: Kwargs) -> Body | None:
    found = {"model": kwargs.get("model"), **picked(result, *_RESPONSE)}
    return found if "usage" in found else None


def _watch_response(seen: Seen, event: Any) -> None:
    response = getattr(event, "response", None)
    if response is not None:
        seen.body.update(picked(response, *_RESPONSE))
        seen.final = seen.final or "usage" in seen.body
    delta = getattr(event, "delta", None)
    if isinstance(delta, str):
        seen.text += len(delta)


def _guess_response(seen: Seen, kwargs: Kwargs) -> Body:
    used = {
        "input_tokens": tokens_sent(kwargs),
        "output_tokens": tokens_of(seen.text),
    }
    total = {"total_tokens": sum(used.values())}
    model = {"model": kwargs.get("model"), "object": "response"}
    return {**model, **seen.body, "usage": {**used, **total}}


def _embedding_body(result: Any, kwargs: Kwargs) -> Body | None:
    found = {"model": kwargs.get("model"), **picked(result, "object", "model", "usage")}
    return found if "usage" in found else None


def _guess_embedding(seen: Seen, kwargs: Kwargs) -> Body:
    count = tokens_sent(kwargs)
    used = {"prompt_tokens": count, "total_tokens": count}
    return {"model": kwargs.get("model"), "object": "list", "usage": used}


def _nothing(_seen: Seen, _chunk: Any) -> None:
    """Embeddings come at once."""


_CALL = Method("call", _chat_body, _watch_chat, _guess_chat, _prepare_chat, _only_usage)
_PARSED = replace(_CALL, parses=True)
_HELPER = Method(
    "manager", _chat_body, _watch_chat, _guess_chat, _ask_for_usage, _only_usage, _gather_chat
)
_RESPOND = Method("call", _response_body, _watch_response, _guess_response)

METHODS: Methods = {
    "chat.completions.create": _CALL,
    "chat.completions.parse": _PARSED,
    "chat.completions.stream": _HELPER,
    "beta.chat.completions.create": _CALL,
    "beta.chat.completions.parse": _PARSED,
    "beta.chat.completions.stream": _HELPER,
    "responses.create": _RESPOND,
    "responses.parse": replace(_RESPOND, parses=True),
    "responses.stream": replace(_RESPOND, kind="manager"),
    "beta.responses.create": _RESPOND,
    "embeddings.create": Method("call", _embedding_body, _nothing, _guess_embedding, answers=False),
}
