"""Google: generated content and embeddings of `google-genai`."""

from typing import Any

from meterline_sdk.providers.shape import (
    Body,
    Kwargs,
    Method,
    Methods,
    Seen,
    characters,
    plain,
    tokens_of,
)


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


def _guess(seen: Seen, kwargs: Kwargs) -> Body:
    said = seen.body.get("usageMetadata", {})
    asked = said.get("promptTokenCount") or tokens_of(characters(kwargs.get("contents")))
    given = max(said.get("candidatesTokenCount") or 0, tokens_of(seen.text))
    used = {
        **said,
        "promptTokenCount": asked,
        "candidatesTokenCount": given,
        "totalTokenCount": asked + given + (said.get("thoughtsTokenCount") or 0),
    }
    return {**seen.body, "usageMetadata": used}


_GENERATE = Method("call", _body, _watch, _guess, names_model=False)

METHODS: Methods = {
    "models.generate_content": _GENERATE,
    "models.generate_content_stream": Method("stream", _body, _watch, _guess, names_model=False),
    "models.embed_content": Method("call", _body, _watch, _guess, answers=False, names_model=False),
}
"""The asynchronous client has the same under `aio`."""
