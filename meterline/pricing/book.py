"""The price of a model at a date: a namespace's own prices first, then the catalogue. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Protocol

from meterline.pricing.cost import cost
from meterline.pricing.rates import UNPRICED, Costed, Price, PriceSource, Rate, Unpriced
from meterline.pricing.usage import TokenUsage


class Catalogue(Protocol):
    """Prices that others publish."""

    @property
    def version(self) -> str:
        """Which edition it is."""
        ...

    def provider_of(self, model: str) -> str | None:
        """Whose model it is, when the name says so; None when nobody's, or several."""
        ...

    def provider_id(self, provider: str) -> str | None:
        """The catalogue's name of a provider, None when it does not know it."""
        ...

    def find(
        self, provider: str | None, model: str, at: datetime, context: Mapping[str, str]
    ) -> Price | Unpriced:
        """The price of a model at an instant. `context` names other terms than the standard."""
        ...


@dataclass(frozen=True, slots=True)
class Override:
    """A price of one's own, in force in [`valid_from`, `valid_until`).

    A `*` in `model` stands for any characters. Without `provider` it is for all of them.
    """

    id: str
    model: str
    rates: Mapping[str, Rate]
    provider: str | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None

    def fits(self, provider: str | None, model: str, at: datetime) -> bool:
        """Whether it is the price of that model at that instant."""
        if self.valid_from is not None and at < self.valid_from:
            return False
        if self.valid_until is not None and at >= self.valid_until:
            return False
        if self.provider is not None and self.provider != provider:
            return False
        return _pattern(self.model).fullmatch(model.strip().lower()) is not None

    @property
    def rank(self) -> tuple[bool, bool, int, datetime, str]:
        """The highest of those that fit wins: the more exact one, then the one that began later."""
        exact = "*" not in self.model
        began = self.valid_from or _EVER
        return exact, self.provider is not None, len(self.model), began, self.id


@dataclass(frozen=True, slots=True)
class Asked:
    """Which price is wanted."""

    model: str
    at: datetime
    provider: str | None = None
    context: Mapping[str, str] = field(default_factory=dict)
    """Other terms than the standard: `service_tier`, `processing`, `speed`."""


@dataclass(frozen=True, slots=True)
class Quote:
    """What usage costs, or that and why it has no price. `provider` is the one that was meant."""

    provider: str | None
    outcome: Costed | Unpriced

    @property
    def state(self) -> str:
        """`override`, `catalogue` or `unpriced`."""
        return self.outcome.stamp.source if isinstance(self.outcome, Costed) else UNPRICED

    @property
    def cost_usd(self) -> Decimal | None:
        """US dollars; None when there is no price."""
        return self.outcome.cost_usd if isinstance(self.outcome, Costed) else None


@dataclass(frozen=True, slots=True)
class PriceBook:
    """The prices of one namespace."""

    catalogue: Catalogue
    overrides: Sequence[Override] = ()

    def find(self, asked: Asked) -> Price | Unpriced:
        """The price that is wanted."""
        own = self.own(asked)
        if own is not None:
            return own
        return self.catalogue.find(asked.provider, asked.model, asked.at, asked.context)

    def own(self, asked: Asked) -> Price | None:
        """The override that is wanted, if there is one. It is for all terms."""
        provider = self.provider(asked) if self.overrides else None
        fitting = [one for one in self.overrides if one.fits(provider, asked.model, asked.at)]
        if not fitting:
            return None
        best = max(fitting, key=lambda one: one.rank)
        return Price(
            id=best.id,
            source=PriceSource.OVERRIDE,
            provider=best.provider or provider,
            model=asked.model,
            rates=best.rates,
            valid_from=best.valid_from,
        )

    def quote(self, asked: Asked, usage: TokenUsage) -> Quote:
        """What usage costs. A price that lacks a rate is not completed from another one."""
        price = self.find(asked)
        outcome = cost(price, usage) if isinstance(price, Price) else price
        return Quote(self.provider(asked), outcome)

    def provider(self, asked: Asked) -> str | None:
        """The provider that is meant, by the catalogue's name where it has one."""
        if asked.provider is None:
            return self.catalogue.provider_of(asked.model)
        return self.catalogue.provider_id(asked.provider) or asked.provider.strip().lower()


_EVER = datetime(1, 1, 1, tzinfo=UTC)


@lru_cache(4096)
def _pattern(model: str) -> re.Pattern[str]:
    parts = model.strip().lower().split("*")
    return re.compile(".*".join(map(re.escape, parts)), re.DOTALL)
