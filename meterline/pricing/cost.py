"""What usage costs at a price. Pure, and rounded once, at the end."""

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction

from meterline.kernel.quantity import FRACTION_DIGITS
from meterline.pricing.rates import Costed, Price, PriceStamp, UnitPrice, Unpriced
from meterline.pricing.units import MEASURES, UNITS
from meterline.pricing.usage import TokenUsage

_SCALE = 10**FRACTION_DIGITS
_ONE = Decimal(1)


def cost(price: Price, usage: TokenUsage) -> Costed | Unpriced:
    """The cost of `usage`, or why this price cannot say it.

    A count is billed at the most exact rate that there is for it: cached tokens at the rate of
    `cached_tokens`, or without one at that of `input_tokens`. A count above 0 that no rate covers
    makes the usage unpriced, because leaving it out would price it at 0.
    """
    counts = _billed_counts(price, usage)
    missing = _uncovered(price, counts)
    if missing is not None:
        return Unpriced(missing)
    lines = _split(price, counts)
    if isinstance(lines, Unpriced):
        return lines
    input_tokens = usage.input_tokens or Decimal(0)
    total = Fraction(0)
    unit_prices = {}
    for key, count in lines.items():
        rate = price.rates[key]
        applied = rate.at(input_tokens)
        total += Fraction(applied) * Fraction(count) / rate.per
        unit_prices[key] = UnitPrice(applied, rate.per)
    stamp = PriceStamp(
        id=price.id,
        source=price.source,
        provider=price.provider,
        model=price.model,
        unit_prices=unit_prices,
        catalogue=price.catalogue,
        valid_from=price.valid_from,
    )
    return Costed(_rounded(total), stamp, lines)


def _billed_counts(price: Price, usage: TokenUsage) -> Mapping[str, Decimal]:
    """The counts that a price looks at. A call is one request unless it says otherwise."""
    counts = dict(usage.counts())
    counts.setdefault("requests", _ONE)
    for key, least in price.minimums.items():
        if counts.get(key):
            counts[key] = max(counts[key], least)
    return counts


def _uncovered(price: Price, counts: Mapping[str, Decimal]) -> str | None:
    """Why some of the counts would be left out; None when none would."""
    used = [UNITS[key] for key, count in counts.items() if count and key != "requests"]
    rated = [UNITS[key] for key in price.rates]
    known = {unit.family for unit in rated}
    measured = {unit.family for unit in used if unit.family in MEASURES}
    for unit in used:
        is_apart = unit.key in price.apart and unit.key not in price.rates
        if any(one.holds(unit) for one in rated) and not is_apart:
            continue
        # Of several measures of the same work it is enough that the price knows one.
        if unit.family in MEASURES and unit.family not in known and measured & known:
            continue
        return f"the price {price.id} has no rate for {unit.key}"
    if not any(key in price.rates for key in counts) and not used:
        return f"nothing that the price {price.id} has a rate for was counted"
    return None


def _split(price: Price, counts: Mapping[str, Decimal]) -> dict[str, Decimal] | Unpriced:
    """How much is billed at each rate: a whole without its parts that have a rate of their own."""
    lines: dict[str, Decimal] = {}
    rated = sorted((UNITS[key] for key in price.rates), key=lambda unit: -len(unit.dimensions))
    for unit in rated:
        if unit.key not in counts:
            continue
        parts = (count for key, count in lines.items() if unit.holds(UNITS[key]))
        rest = counts[unit.key] - sum(parts, Decimal(0))
        if rest < 0:
            return Unpriced(f"parts of {unit.key} overlap, and the usage does not say by how much")
        lines[unit.key] = rest
    overlap = _overlap(price, counts)
    return Unpriced(overlap) if overlap else lines


def _overlap(price: Price, counts: Mapping[str, Decimal]) -> str | None:
    """Why tokens with two rates, as cached audio has them, cannot be told apart; else None."""
    for modality in ("audio", "image", "video"):
        if not counts.get(f"input_{modality}_tokens"):
            continue
        if f"input_{modality}_tokens" not in price.rates:
            continue
        for kind in ("cached", "cache_write"):
            both = f"{kind}_{modality}_tokens"
            if not counts.get(f"{kind}_tokens") or f"{kind}_tokens" not in price.rates:
                continue
            if both not in counts:
                return f"the usage does not say how many of the {kind}_tokens are {modality}"
            if counts[both] and both not in price.rates:
                return f"the price {price.id} has no rate for {both}"
    return None


def _rounded(total: Fraction) -> Decimal:
    scaled = round(total * _SCALE)  # of a fraction, exactly, ties to even
    sign, digits = (1, -scaled) if scaled < 0 else (0, scaled)
    return Decimal((sign, tuple(map(int, str(digits))), -FRACTION_DIGITS))
