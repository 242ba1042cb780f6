"""What is read from a provider's answer. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from meterline.pricing.bodies import Part
from meterline.pricing.usage import TokenUsage, usage_of


@dataclass(frozen=True, slots=True)
class Extracted:
    """The usage of one call, and what else its body tells. None is what the body does not say."""

    provider: str
    usage: TokenUsage
    model: str | None = None
    response_id: str | None = None
    usage_type: str = "text"
    context: Mapping[str, str] = field(default_factory=dict)
    """Terms of the price: `service_tier`, `processing`, `speed`."""
    created: str | None = None
    """When the provider made the answer, as it says it. Its form is not known."""


Reader = Callable[[Sequence[Part]], Extracted | None]
"""Reads the events of one call (one when it was not streamed); None when the shape is another's."""


def counted(**counts: Decimal | None) -> TokenUsage:
    """Checked usage of one request."""
    return usage_of({"requests": Decimal(1), **counts})


def total(*counts: Decimal | None) -> Decimal | None:
    """The sum of what is known; None when nothing is."""
    known = [one for one in counts if one is not None]
    return sum(known, Decimal(0)) if known else None


def terms(**texts: str | None) -> Mapping[str, str]:
    """The terms that are said."""
    return {name: text for name, text in texts.items() if text}


def first_known(*counts: Decimal | None) -> Decimal | None:
    """The first that is known."""
    return next((one for one in counts if one is not None), None)
