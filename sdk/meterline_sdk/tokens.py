"""What a provider's answer says was used, as far as credits are concerned. Pure."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of one call. `input_tokens` has those that were cached, too."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


def tokens_of_result(result: Any) -> Tokens | None:
    """The tokens of an answer of OpenAI, Anthropic, Cohere or Google; None if it says nothing.

    The answer is the provider's package's, or its JSON.
    """
    usage = _first(result, "usage", "usage_metadata", "usageMetadata", "meta")
    billed = _first(usage, "billed_units")
    if billed is not None:
        return _billed(billed)
    if _first(usage, "prompt_token_count", "promptTokenCount") is not None:
        return _google(usage)
    if _first(usage, "prompt_tokens") is not None:
        details = _first(usage, "prompt_tokens_details")
        cached = _first(details, "cached_tokens")
        return _tokens(_first(usage, "prompt_tokens"), _first(usage, "completion_tokens"), cached)
    if _first(usage, "input_tokens") is None:
        return None
    read, written = _first(usage, "cache_read_input_tokens"), None
    if read is not None or _first(usage, "cache_creation_input_tokens") is not None:
        # Anthropic counts what was cached apart from the input.
        written = _first(usage, "cache_creation_input_tokens")
        asked = _whole(_first(usage, "input_tokens")) + _whole(read) + _whole(written)
        return _tokens(asked, _first(usage, "output_tokens"), read)
    cached = _first(_first(usage, "input_tokens_details"), "cached_tokens")
    return _tokens(_first(usage, "input_tokens"), _first(usage, "output_tokens"), cached)


def _billed(billed: Any) -> Tokens | None:
    """Of Cohere: chat, embed, and rerank, which bills searches and no tokens."""
    texts, images = _first(billed, "input_tokens"), _first(billed, "image_tokens")
    given = _first(billed, "output_tokens")
    if texts is None and images is None and given is None:
        return None
    return _tokens(_whole(texts) + _whole(images), given, None)


def _google(usage: Any) -> Tokens:
    asked = _first(usage, "prompt_token_count", "promptTokenCount")
    tools = _first(usage, "tool_use_prompt_token_count", "toolUsePromptTokenCount")
    given = _first(usage, "candidates_token_count", "candidatesTokenCount")
    thought = _first(usage, "thoughts_token_count", "thoughtsTokenCount")
    cached = _first(usage, "cached_content_token_count", "cachedContentTokenCount")
    return _tokens(_whole(asked) + _whole(tools), _whole(given) + _whole(thought), cached)


def _tokens(given: Any, taken: Any, cached: Any) -> Tokens:
    return Tokens(_whole(given), _whole(taken), None if cached is None else _whole(cached))


def _whole(value: Any) -> int:
    return 0 if value is None else int(value)


def _first(value: Any, *names: str) -> Any:
    for name in names:
        found = value.get(name) if isinstance(value, dict) else getattr(value, name, None)
        if found is not None:
            return found
    return None
