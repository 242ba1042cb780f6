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
    """The tokens of an answer of OpenAI, Anthropic, Cohere or Google; None if it says nothing."""
    usage = _first(result, "usage", "usage_metadata")
    if usage is None:
        return None
    if _first(usage, "billed_units") is not None:
        billed = _first(usage, "billed_units")
        return _tokens(_first(billed, "input_tokens"), _first(billed, "output_tokens"), None)
    if _first(usage, "prompt_token_count") is not None:
        given = _whole(_first(usage, "candidates_token_count"))
        thought = _whole(_first(usage, "thoughts_token_count"))
        asked = _first(usage, "prompt_token_count")
        return _tokens(asked, given + thought, _first(usage, "cached_content_token_count"))
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
