"""How much a model call used, in one form for all providers. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal

from meterline.kernel.quantity import INTEGER_DIGITS, format_number
from meterline.pricing.units import UNITS

MOST = Decimal(10) ** (INTEGER_DIGITS - 8)
"""So that the cost of the dearest of them is still a quantity."""
_FRACTION_DIGITS = 15
_ABSURD = 100


class InvalidUsageError(ValueError):
    """Counts that contradict one another, or that nothing can have. `field` is a unit's key."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenUsage:
    """Counts of one call. None means that nobody said; that is not the same as 0.

    `input_tokens` includes what was read from and written to a cache, `output_tokens` includes
    reasoning, and both include all modalities. `cache_write_tokens` includes those of both
    lifetimes. Durations are seconds.
    """

    input_tokens: Decimal | None = None
    cached_tokens: Decimal | None = None
    cache_write_tokens: Decimal | None = None
    cache_write_5m_tokens: Decimal | None = None
    cache_write_1h_tokens: Decimal | None = None
    input_audio_tokens: Decimal | None = None
    cached_audio_tokens: Decimal | None = None
    input_image_tokens: Decimal | None = None
    cached_image_tokens: Decimal | None = None
    input_video_tokens: Decimal | None = None
    output_tokens: Decimal | None = None
    reasoning_tokens: Decimal | None = None
    output_audio_tokens: Decimal | None = None
    output_image_tokens: Decimal | None = None
    output_video_tokens: Decimal | None = None
    characters: Decimal | None = None
    audio_seconds: Decimal | None = None
    images: Decimal | None = None
    web_searches: Decimal | None = None
    rerank_searches: Decimal | None = None
    requests: Decimal | None = None

    def counts(self) -> Mapping[str, Decimal]:
        """What is known, by the keys of `UNITS`."""
        return {key: count for key in COUNTS if (count := getattr(self, key)) is not None}

    @property
    def total_tokens(self) -> Decimal:
        """Input and output; what nobody said adds nothing."""
        return (self.input_tokens or Decimal(0)) + (self.output_tokens or Decimal(0))


COUNTS = tuple(one.name for one in fields(TokenUsage))

_PARTS = (
    ("input_tokens", ("cached_tokens", "cache_write_tokens")),
    ("input_tokens", ("input_audio_tokens", "input_image_tokens", "input_video_tokens")),
    ("cache_write_tokens", ("cache_write_5m_tokens", "cache_write_1h_tokens")),
    ("cached_tokens", ("cached_audio_tokens", "cached_image_tokens")),
    ("input_audio_tokens", ("cached_audio_tokens",)),
    ("input_image_tokens", ("cached_image_tokens",)),
    ("output_tokens", ("reasoning_tokens",)),
    ("output_tokens", ("output_audio_tokens", "output_image_tokens", "output_video_tokens")),
)


def usage_of(counts: Mapping[str, Decimal | None]) -> TokenUsage:
    """The usage with these counts, checked: parts are at most their whole, nothing is negative.

    A cache write that is given by its lifetimes alone is their sum. Raises `InvalidUsageError`.
    """
    known = {key: count for key, count in counts.items() if count is not None}
    for key, count in known.items():
        if key not in UNITS:
            raise InvalidUsageError(key, "is not known")
        if not count.is_finite() or count < 0:
            raise InvalidUsageError(key, "must not be negative")
        if count >= MOST:
            raise InvalidUsageError(key, f"must be less than {MOST:f}")
        known[key] = _plain(key, count)
    lifetimes = [known[key] for key in _PARTS[2][1] if key in known]
    if lifetimes and "cache_write_tokens" not in known:
        known["cache_write_tokens"] = sum(lifetimes, Decimal(0))
    for whole, parts in _PARTS:
        _check_parts(known, whole, parts)
    return TokenUsage(**known)


def _plain(key: str, count: Decimal) -> Decimal:
    """The count with few enough digits that sums of counts are exact."""
    if not count:
        return Decimal(0)
    exponent = int(count.as_tuple().exponent)
    if exponent >= 0:
        return Decimal(int(count))
    digits = len(format_number(count).partition(".")[2]) if exponent > -_ABSURD else _ABSURD
    if digits > _FRACTION_DIGITS:
        raise InvalidUsageError(key, f"must have at most {_FRACTION_DIGITS} digits after the point")
    return count


def _check_parts(known: Mapping[str, Decimal], whole: str, parts: tuple[str, ...]) -> None:
    together = sum((known.get(part, Decimal(0)) for part in parts), Decimal(0))
    if not together:
        return
    first = next(part for part in parts if known.get(part))
    if whole not in known:
        raise InvalidUsageError(whole, f"is needed, because {first} is part of it")
    if together > known[whole]:
        names = " and ".join(part for part in parts if known.get(part))
        raise InvalidUsageError(first, f"{names} are more than {whole}, which they are part of")


def add(one: TokenUsage, other: TokenUsage) -> TokenUsage:
    """Both together; a count is unknown when neither knows it."""
    left, right = dict(one.counts()), dict(other.counts())
    return TokenUsage(
        **{key: left.get(key, Decimal(0)) + right.get(key, Decimal(0)) for key in left | right}
    )
