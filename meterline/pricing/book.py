"""The price of a model at a date: a namespace's own prices first, then the catalogue. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from functools import lru_cache
from typing import Protocol

from meterline.pricing.cost import cost
from meterline.pricing.names import names
from meterline.pricing.rates import UNPRICED, Costed, KnownModel, Price, PriceSource, Rate, Unpriced
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

    def model_id(self, provider: str, model: str) -> str | None:
        """The catalogue's name of a provider's model, None when it does not know it."""
        ...

    def find(
        self, provider: str | None, model: str, at: datetime, context: Mapping[str, str]
    ) -> Price | Unpriced:
        """The price of a model at an instant. `context` names other terms than the standard."""
        ...


class Fit(IntEnum):
    """How well a price of one's own fits a model; the higher wins."""

    PATTERN = 1
    SAME = 2
    """The same model by another name: with a date after it, or its maker before it."""
    EXACT = 3


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

    def fit(self, provider: str | None, model: str, at: datetime) -> Fit | None:
        """How well it fits that model at that instant; None when it is not its price."""
        if self.valid_from is not None and at < self.valid_from:
            return None
        if self.valid_until is not None and at >= self.valid_until:
            return None
        if self.provider is not None and self.provider != provider:
            return None
        known, wanted = self.model.strip().lower(), model.strip().lower()
        if "*" in known:
            return Fit.PATTERN if _pattern(known).fullmatch(wanted) else None
        if known == wanted:
            return Fit.EXACT
        return Fit.SAME if names(known, wanted) else None

    def rank(self, fit: Fit) -> tuple[Fit, bool, int, datetime, str]:
        """The highest of those that fit wins: the more exact one, then the one that began later."""
        began = self.valid_from or _EVER
        return fit, self.provider is not None, len(self.model), began, self.id


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
        ranked = {
            one.rank(fit): one
            for one in self.overrides
            if (fit := one.fit(provider, asked.model, asked.at)) is not None
            and (fit is not Fit.SAME or self._may_be_same(provider, one.model, asked.model))
        }
        if not ranked:
            return None
        best = ranked[max(ranked)]
        return Price(
            id=best.id,
            source=PriceSource.OVERRIDE,
            provider=best.provider or provider,
            model=asked.model,
            rates=best.rates,
            valid_from=best.valid_from,
        )

    def _may_be_same(self, provider: str | None, one: str, other: str) -> bool:
        """False when the catalogue tells them apart: `gpt-4-1106-preview` is not `gpt-4`."""
        if provider is None:
            return True
        known, wanted = (self.catalogue.model_id(provider, model) for model in (one, other))
        return known is None or wanted is None or known == wanted

    def own_models(self, provider: str | None, at: datetime) -> Iterator[KnownModel]:
        """The models, of one provider or of all, that have prices of one's own alone."""
        wanted = None if provider is None else self._provider_id(provider)
        named = {(one.provider, one.model) for one in self.overrides if "*" not in one.model}
        for whose, model in sorted(named, key=lambda one: (one[0] or "", one[1])):
            maker = whose or self.catalogue.provider_of(model)
            if wanted not in (None, maker) or (maker and self.catalogue.model_id(maker, model)):
                continue
            price = self.own(Asked(model, at, whose))
            if price is not None:
                yield KnownModel(whose, model, None, None, False, price)

    def quote(self, asked: Asked, usage: TokenUsage) -> Quote:
        """What usage costs. A price that lacks a rate is not completed from another one."""
        price = self.find(asked)
        outcome = cost(price, usage) if isinstance(price, Price) else price
        return Quote(self.provider(asked), outcome)

    def provider(self, asked: Asked) -> str | None:
        """The provider that is meant, by the catalogue's name where it has one."""
        if asked.provider is None:
            return self.catalogue.provider_of(asked.model)
        return self._provider_id(asked.provider)

    def _provider_id(self, provider: str) -> str:
        return self.catalogue.provider_id(provider) or provider.strip().lower()


_EVER = datetime(1, 1, 1, tzinfo=UTC)


@lru_cache(4096)
def _pattern(model: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, model.split("*"))), re.DOTALL)
