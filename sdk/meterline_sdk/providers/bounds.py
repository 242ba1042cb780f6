"""How much a call can use at most, as far as its arguments say. Pure.

A byte of text is never more than one token, so the bytes of what is sent bound the input; the
output is bounded by the caller's own maximum. What the arguments do not show is not in it: earlier
turns that are named by an id, searches, tools that the provider runs; images, audio and documents
inside the messages count as 4,000 tokens each, also those that are named by an address.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from meterline_sdk.providers.sizes import BYTES, Kwargs, sent

_MOST = ("max_completion_tokens", "max_output_tokens", "max_tokens", "maxOutputTokens")
_TIMES = ("n", "candidate_count", "candidateCount")
_CALL = 64


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
    most = _said(_MOST, kwargs, config)
    times = _said(_TIMES, kwargs, config) or 1
    return Bound(_CALL + sent(kwargs, BYTES), (output_tokens if most is None else most) * times)


def _said(names: tuple[str, ...], *places: Any) -> int | None:
    for place in places:
        for name in names:
            found = place.get(name) if isinstance(place, Mapping) else getattr(place, name, None)
            if isinstance(found, int) and not isinstance(found, bool):
                return found
    return None
