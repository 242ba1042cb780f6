"""From tokens to credits. Pure; amounts are exact to 18 digits after the point."""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

from entitlements.balance.exact import ROOM
from meterline.kernel.quantity import FRACTION_DIGITS

PER_TOKENS = Decimal(1_000_000)
"""Rates are for so many tokens."""

_WIDE = Context(prec=200, rounding=ROUND_HALF_EVEN)
_QUANTUM = Decimal(1).scaleb(-FRACTION_DIGITS)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of a model call. The input includes what was read from a cache."""

    input: int = 0
    output: int = 0
    cached: int = 0


@dataclass(frozen=True, slots=True)
class Rate:
    """Credits of a model, for a million tokens each."""

    model: str
    input: Decimal
    output: Decimal
    cached: Decimal
    """Of the input tokens that were read from a cache."""


@dataclass(frozen=True, slots=True)
class CreditOptions:
    """What a model without a rate costs: its price, times these. Settings of `credits`."""

    markup: Decimal = Decimal(1)
    credits_per_usd: Decimal = Decimal(1)
    transaction_ttl_seconds: Decimal = Decimal(900)
    """When an unfinished transaction gives its hold back."""
    reservation_ttl_seconds: Decimal = Decimal(900)


def credits_at(rate: Rate, tokens: Tokens) -> Decimal:
    """What tokens cost at a rate."""
    fresh = max(tokens.input - tokens.cached, 0)
    parts = ((fresh, rate.input), (tokens.cached, rate.cached), (tokens.output, rate.output))
    whole = Decimal(0)
    for count, price in parts:
        whole = ROOM.add(whole, ROOM.multiply(Decimal(count), price))
    return rounded(_WIDE.divide(whole, PER_TOKENS))


def credits_for(cost_usd: Decimal, options: CreditOptions) -> Decimal:
    """What a cost is in credits."""
    factor = ROOM.multiply(options.markup, options.credits_per_usd)
    return rounded(_WIDE.multiply(cost_usd, factor))


def rounded(amount: Decimal) -> Decimal:
    """The amount to 18 digits after the point, ties to even."""
    return _WIDE.quantize(amount, _QUANTUM).normalize(_WIDE)
