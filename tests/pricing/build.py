"""Short ways to say usage and prices."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from meterline.pricing.book import Asked, Override, PriceBook, Quote
from meterline.pricing.catalogue import GenaiCatalogue
from meterline.pricing.rates import Costed, Rate, Unpriced
from meterline.pricing.units import UNITS
from meterline.pricing.usage import TokenUsage, usage_of

CATALOGUE = GenaiCatalogue()
AT = datetime(2026, 11, 1, tzinfo=UTC)


def used(**counts: Any) -> TokenUsage:
    return usage_of({key: Decimal(str(count)) for key, count in counts.items()})


def day(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def rates(**prices: Any) -> dict[str, Rate]:
    return {key: Rate(Decimal(str(price)), UNITS[key].per) for key, price in prices.items()}


def override(model: str, id: str = "own", **more: Any) -> Override:
    fields = {
        key: more.pop(key) for key in ("provider", "valid_from", "valid_until") if key in more
    }
    return Override(id, model, rates(**more), **fields)


def quote(
    model: str,
    usage: TokenUsage,
    *overrides: Override,
    provider: str | None = None,
    at: datetime = AT,
    **context: str,
) -> Quote:
    return PriceBook(CATALOGUE, overrides).quote(Asked(model, at, provider, context), usage)


def usd(given: Quote) -> Decimal:
    assert isinstance(given.outcome, Costed), given
    return given.outcome.cost_usd


def why(given: Quote) -> str:
    assert isinstance(given.outcome, Unpriced), given
    assert given.cost_usd is None and given.state == "unpriced"
    return given.outcome.reason
