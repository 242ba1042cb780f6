"""Media types (RFC 9110, section 8.3.1) as values, and the choice by `Accept`."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf"[ \t]*({_TOKEN})/({_TOKEN})")
_PARAMETER = re.compile(
    rf'[ \t]*;[ \t]*(?:({_TOKEN})=(?:({_TOKEN})|"((?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[ -~\t])*)"))?'
)
_QUOTED_PAIR = re.compile(r"\\(.)")
_MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class MediaType:
    """`essence` is `type/subtype` in lower case; parameter names are in lower case too."""

    essence: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse_media_type(text: str) -> MediaType | None:
    """The media type that `text` spells, None when it spells none (or a parameter twice)."""
    match = _MEDIA_TYPE.match(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        return None
    essence = f"{match[1]}/{match[2]}".lower()
    parameters: dict[str, str] = {}
    position = match.end()
    while parameter := _PARAMETER.match(text, position):
        position = parameter.end()
        if parameter[1] is None:
            continue
        name = parameter[1].lower()
        if name in parameters:
            return None
        quoted = parameter[3]
        parameters[name] = parameter[2] if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
    return MediaType(essence, parameters) if not text[position:].strip(" \t") else None


def choose(accept: str | None, offered: Sequence[str]) -> str | None:
    """Which of `offered` the caller likes best, by its `Accept`; the first of equals.

    None when it accepts none of them. No header, or one that is not understood, accepts all.
    """
    ranges = [parse_media_type(part) for part in (accept or "")[:_MAX_LENGTH].split(",")]
    wanted = [(item.essence, _quality(item)) for item in ranges if item is not None]
    if not wanted:
        return offered[0]
    best, best_quality = None, 0.0
    for candidate in offered:
        quality = _quality_of(candidate, wanted)
        if quality > best_quality:
            best, best_quality = candidate, quality
    return best


def _quality(item: MediaType) -> float:
    text = item.parameters.get("q", "1")
    return float(text) if re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", text, re.ASCII) else 1.0


def _quality_of(candidate: str, wanted: Sequence[tuple[str, float]]) -> float:
    """The most exact range that fits decides."""
    family = candidate.partition("/")[0] + "/*"
    for pattern in (candidate, family, "*/*"):
        for essence, quality in wanted:
            if essence == pattern:
                return quality
    return 0.0
