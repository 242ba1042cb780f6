"""Google: generated content and embeddings of `google-genai`."""

from typing import Any

from meterline_sdk.providers.shape import (
    Body,
    Method,
    Methods,
    Seen,
    member,
    plain,
)
from meterline_sdk.providers.sizes import Kwargs, characters, tokens_of, tokens_sent


def _members(result: Any) -> Body:
    found: Body = {}
    for name, wire in (
        ("response_id", "responseId"),
        ("model_version", "modelVersion"),
        ("usage_metadata", "usageMetadata"),
    ):
        one = plain(getattr(result, name, None))
        if one is not None:
            found[wire] = one
    return found


def _body(result: Any, kwargs: Kwargs) -> Body | None:
    found = _members(result)
    return found if "usageMetadata" in found else None


def _watch(seen: Seen, chunk: Any) -> None:
    # Every chunk may say what was used so far: the last one counts.
    seen.body.update(_members(chunk))
    for candidate in getattr(chunk, "candidates", None) or ():
        if getattr(candidate, "finish_reason", None) is not None:
            seen.final = "usageMetadata" in seen.body
        for part in getattr(getattr(candidate, "content", None), "parts", None) or ():
            seen.text += len(getattr(part, "text", None) or "")
            seen.text += characters(getattr(getattr(part, "function_call", None), "args", None))


def _guess(seen: Seen, kwargs: Kwargs) -> Body:
    said = seen.body.get("usageMetadata", {})
    asked = said.get("promptTokenCount") or tokens_sent(kwargs)
    given = max(said.get("candidatesTokenCount") or 0, tokens_of(seen.text))
    used = {
        **said,
        "promptTokenCount": asked,
        "candidatesTokenCount": given,
        "totalTokenCount": asked + given + (said.get("thoughtsTokenCount") or 0),
    }
    return {**seen.body, "usageMetadata": used}


def _one_request(kwargs: Kwargs) -> tuple[Kwargs, bool]:
    """The client calls functions within one call, and says only what its last request used."""
    config = kwargs.get("config")
    calling = member(config, "automatic_function_calling", "automaticFunctionCalling")
    most = member(calling, "maximum_remote_calls", "maximumRemoteCalls")
    if not member(calling, "disable") and (most is None or most > 1):
        tools = member(config, "tools") or ()
        # A session of the Model Context Protocol has `call_tool`.
        if any(callable(tool) or hasattr(tool, "call_tool") for tool in tools):
            raise ValueError(
                "with automatic function calling only the last of several requests says what it "
                "used: give config automatic_function_calling={'disable': True}, and call the "
                "functions yourself"
            )
    return kwargs, False


_GENERATE = Method("call", _body, _watch, _guess, _one_request, names_model=False)
_STREAM = Method("stream", _body, _watch, _guess, _one_request, names_model=False)

METHODS: Methods = {
    "models.generate_content": _GENERATE,
    "models.generate_content_stream": _STREAM,
    "models.embed_content": Method("call", _body, _watch, _guess, answers=False, names_model=False),
}
"""The asynchronous client has the same under `aio`."""
