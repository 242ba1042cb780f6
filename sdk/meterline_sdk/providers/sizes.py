"""How much there is in a request or an answer, whichever way it is nested. Pure."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Kwargs = dict[str, Any]

_SENT = (
    "messages", "input", "instructions", "system", "tools", "functions", "contents", "prompt",
    "documents", "texts", "query", "response_format", "text_format", "output_format", "text",
    "config",
)  # fmt: skip
_ANSWERED = ("choices", "output", "content", "message", "candidates")
_NO_TEXT = (
    "type", "role", "id", "call_id", "tool_call_id", "status", "object", "finish_reason",
    "index", "parsed", "parsed_output",
)  # fmt: skip
_INLINE = ("base64", "input_audio")
_MEDIA = ("image", "image_url", "input_image", "document", "file", "input_file")
_FILES = ("file_data", "fileData", "mime_type", "mimeType")


@dataclass(frozen=True, slots=True)
class Scale:
    """What the parts of a request count."""

    text: Callable[[str], int]
    named: Callable[[str, int], int]
    """A member of an object, by its name and what its value counts."""
    media: int
    """An image, audio or a document, as nobody knows what the provider makes of it."""
    part: int
    number: int


BYTES = Scale(
    text=lambda text: len(text.encode(errors="surrogatepass")),
    named=lambda name, count: 8 + len(name) + count,
    media=4_000,
    part=8,
    number=8,
)
"""At least as many as there are tokens: no token is less than a byte of text."""

_CHARACTERS = Scale(
    text=len,
    named=lambda name, count: 0 if name in _NO_TEXT else count,
    media=4_000,
    part=0,
    number=4,
)
"""Four of them are about a token, and a thousand tokens about an image."""


def sent(kwargs: Kwargs, scale: Scale) -> int:
    """How much the arguments of a call send to the provider."""
    return sum(size(kwargs[name], scale) for name in _SENT if name in kwargs)


def tokens_sent(kwargs: Kwargs) -> int:
    """About how many tokens the arguments of a call are."""
    return tokens_of(sent(kwargs, _CHARACTERS))


def characters(value: Any) -> int:
    """How much text there is in a part of an answer."""
    return size(value, _CHARACTERS)


def written(answer: Any) -> int:
    """How much text an answer has, in characters: an object of a package, or its JSON."""
    value = answer
    if hasattr(answer, "model_dump"):
        # A snapshot of half an answer is not quite of its type.
        value = answer.model_dump(exclude_none=True, warnings=False)
    if not isinstance(value, Mapping):
        return 0
    return sum(characters(value[name]) for name in _ANSWERED if value.get(name) is not None)


def tokens_of(count: int) -> int:
    """About how many tokens so many characters are: four each, as providers say of English."""
    return -(-count // 4)


def size(value: Any, scale: Scale) -> int:
    """How much a part of a request is."""
    if isinstance(value, str):
        return scale.media if value.startswith("data:") else scale.text(value)
    if isinstance(value, Mapping):
        return _object(value, scale)
    if isinstance(value, list | tuple):
        return scale.part + sum(size(one, scale) for one in value)
    if isinstance(value, bytes | bytearray):
        return scale.media
    if value is None:
        return scale.part
    if isinstance(value, int | float):
        return scale.number
    if isinstance(value, type):
        schema = getattr(value, "model_json_schema", None)
        return scale.media if schema is None else len(json.dumps(schema()))
    if hasattr(value, "model_dump"):
        return size(value.model_dump(exclude_none=True), scale)
    return scale.media


def _object(value: Mapping[Any, Any], scale: Scale) -> int:
    kind = value.get("type")
    if kind in _INLINE or "inline_data" in value or "inlineData" in value:
        return scale.media
    inside = sum(scale.named(str(name), size(one, scale)) for name, one in value.items())
    if kind in _MEDIA or any(name in value for name in _FILES):
        # It may be named by an address, or be text itself, which can be more.
        return max(scale.media, scale.part + inside)
    return scale.part + inside
