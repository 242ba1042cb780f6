"""Prices: rates per unit, where they come from, and what was applied. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class PriceSource(StrEnum):
    """Where a price comes from. An event without a price says `unpriced`."""

    OVERRIDE = "override"
    CATALOGUE = "catalogue"


UNPRICED = "unpriced"


@dataclass(frozen=True, slots=True)
class Tier:
    """The price of all units of a call that has more than `above` input tokens."""

    above: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Rate:
    """US dollars for `per` units. `tiers` ascend; the highest that a call passes is its price."""

    price: Decimal
    per: int
    tiers: tuple[Tier, ...] = ()

    def at(self, input_tokens: Decimal) -> Decimal:
        """The price for a call with so many input tokens."""
        price = self.price
        for tier in self.tiers:
            if input_tokens > tier.above:
                price = tier.price
        return price


@dataclass(frozen=True, slots=True)
class Price:
    """The rates of a model, by the keys of units.

    `id` names this price among all of its source. `catalogue` is the catalogue's version.
    `valid_from` is when it began; None when nobody knows. `minimums` are the least counts that are
    billed. Units that are `apart` are not billed with their whole when they have no rate.
    """

    id: str
    source: PriceSource
    provider: str | None
    model: str
    rates: Mapping[str, Rate]
    catalogue: str | None = None
    valid_from: datetime | None = None
    minimums: Mapping[str, Decimal] = field(default_factory=dict)
    apart: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model with its price at a date. `provider` is None when its price is for all of them."""

    provider: str | None
    id: str
    name: str | None
    context_window: int | None
    deprecated: bool
    price: Price


@dataclass(frozen=True, slots=True)
class UnitPrice:
    """What one unit cost: US dollars for `per` of them."""

    price: Decimal
    per: int


@dataclass(frozen=True, slots=True)
class PriceStamp:
    """Which price was applied, kept with the usage: `unit_prices` are those of the units billed."""

    id: str
    source: PriceSource
    provider: str | None
    model: str
    unit_prices: Mapping[str, UnitPrice]
    catalogue: str | None = None
    valid_from: datetime | None = None


@dataclass(frozen=True, slots=True)
class Unpriced:
    """There is no price, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Costed:
    """What usage costs in US dollars, to 18 fractional digits (ties to even), and by which price.

    `lines` are the units billed with their counts.
    """

    cost_usd: Decimal
    stamp: PriceStamp
    lines: Mapping[str, Decimal]
