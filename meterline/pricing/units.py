"""What can be counted of a model call, and how the counts contain one another. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

MILLION = 1_000_000
THOUSAND = 1_000


@dataclass(frozen=True, slots=True)
class Unit:
    """A count. Another one is part of it when it has all of its `dimensions` and more.

    `per`: of how many a rate is the price, unless the rate says otherwise.
    """

    key: str
    per: int
    dimensions: frozenset[tuple[str, str]]

    @property
    def family(self) -> str:
        """Counts of different families are different ways to measure the same call."""
        return dict(self.dimensions)["family"]

    def holds(self, other: "Unit") -> bool:
        """Whether `other` is part of this count, or this count itself."""
        return self.dimensions <= other.dimensions


def _unit(key: str, per: int, family: str, **dimensions: str) -> Unit:
    return Unit(key, per, frozenset({"family": family, **dimensions}.items()))


def _tokens(key: str, direction: str, **dimensions: str) -> Unit:
    return _unit(key, MILLION, "tokens", direction=direction, **dimensions)


UNITS: Mapping[str, Unit] = {
    unit.key: unit
    for unit in (
        _tokens("input_tokens", "input"),
        _tokens("cached_tokens", "input", kind="cache_read"),
        _tokens("cache_write_tokens", "input", kind="cache_write"),
        _tokens("cache_write_5m_tokens", "input", kind="cache_write", lifetime="5m"),
        _tokens("cache_write_1h_tokens", "input", kind="cache_write", lifetime="1h"),
        _tokens("input_audio_tokens", "input", modality="audio"),
        _tokens("cached_audio_tokens", "input", modality="audio", kind="cache_read"),
        _tokens("input_image_tokens", "input", modality="image"),
        _tokens("cached_image_tokens", "input", modality="image", kind="cache_read"),
        _tokens("input_video_tokens", "input", modality="video"),
        _tokens("output_tokens", "output"),
        _tokens("reasoning_tokens", "output", kind="reasoning"),
        _tokens("output_audio_tokens", "output", modality="audio"),
        _tokens("output_image_tokens", "output", modality="image"),
        _tokens("output_video_tokens", "output", modality="video"),
        _unit("characters", MILLION, "characters"),
        _unit("audio_seconds", 1, "durations"),
        _unit("images", 1, "images"),
        _unit("web_searches", THOUSAND, "web_searches"),
        _unit("rerank_searches", THOUSAND, "rerank_searches"),
        _unit("requests", THOUSAND, "requests"),
    )
}

MEASURES = frozenset({"tokens", "characters", "durations", "images"})
"""Families that measure the same work: a price needs to know one of them."""
