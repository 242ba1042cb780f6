"""How much a call can use at most, as far as its arguments say. Pure.

A byte of text is never more than one token, so the bytes of what is sent bound the input; the
output is bounded by the caller's own maximum. What the arguments do not show is not in it: earlier
turns that are named by an id, files, tools that the provider runs; images, audio and documents
inside the messages count as `_OTHER` tokens each.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meterline_sdk.providers.shape import Kwargs

_SENT = (
    "messages", "input", "instructions", "system", "tools", "functions", "contents", "prompt",
    "documents", "texts", "query", "response_format", "text_format", "output_format", "text",
    "config",
)  # fmt: skip
_MOST = ("max_completion_tokens", "max_output_tokens", "max_tokens", "maxOutputTokens")
_TIMES = ("n", "candidate_count", "candidateCount")
_OTHER = 4_000
_CALL = 64
_PART = 8


@dataclass(frozen=True, slots=True)
class Bound:
    """Tokens at most."""

    input: int
    output: int

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.input + self.output


def bound_of(kwargs: Kwargs, output_tokens: int) -> Bound:
    """The bound of a call. `output_tokens` are those of an answer whose maximum nobody said."""
    config = kwargs.get("config")
    given = _CALL + sum(_size(kwargs[name]) for name in _SENT if name in kwargs)
    most = _said(_MOST, kwargs, config)
    times = _said(_TIMES, kwargs, config) or 1
    return Bound(given, (output_tokens if most is None else most) * times)


def _said(names: tuple[str, ...], *places: Any) -> int | None:
    for place in places:
        for name in names:
            found = place.get(name) if isinstance(place, Mapping) else getattr(place, name, None)
            if isinstance(found, int) and not isinstance(found, bool):
                return found
    return None


def _size(value: Any) -> int:
    """Tokens at most of a part of a request."""
    if isinstance(value, str):
        return _OTHER if value.startswith("data:") else len(value.encode())
    if isinstance(value, Mapping):
        if value.get("type") == "base64" or "inline_data" in value:
            return _OTHER
        return _PART + sum(_PART + len(str(name)) + _size(one) for name, one in value.items())
    if isinstance(value, list | tuple):
        return _PART + sum(map(_size, value))
    if isinstance(value, bytes | bytearray):
        return _OTHER
    if value is None or isinstance(value, int | float):
        return _PART
    schema = getattr(value, "model_json_schema", None)
    if isinstance(value, type):
        return len(json.dumps(schema())) if schema is not None else _OTHER
    if hasattr(value, "model_dump"):
        return _size(value.model_dump(exclude_none=True))
    return _OTHER
