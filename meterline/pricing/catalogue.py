"""The catalogue of the `genai-prices` package, as it was installed: nothing is ever fetched.

Its data and its choice of rows by date are used, its arithmetic and its guesses are not: it takes
the nearest model where ours says that there is none, and skips what a price has no rate for.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from datetime import time as time_of_day
from decimal import Decimal
from functools import lru_cache
from importlib.metadata import version

from genai_prices import types as genai
from genai_prices.data import providers as _providers

from meterline.pricing.names import is_same_model, names
from meterline.pricing.rates import KnownModel, Price, PriceSource, Rate, Tier, Unpriced

VERSION = f"genai-prices {version('genai-prices')}"

_PRICE_KEYS: Mapping[str, tuple[str, int]] = {
    "input_mtok": ("input_tokens", 1_000_000),
    "cache_read_mtok": ("cached_tokens", 1_000_000),
    "cache_write_mtok": ("cache_write_tokens", 1_000_000),
    "cache_write_5m_mtok": ("cache_write_5m_tokens", 1_000_000),
    "cache_write_1h_mtok": ("cache_write_1h_tokens", 1_000_000),
    "input_audio_mtok": ("input_audio_tokens", 1_000_000),
    "cache_audio_read_mtok": ("cached_audio_tokens", 1_000_000),
    "input_image_mtok": ("input_image_tokens", 1_000_000),
    "cache_image_read_mtok": ("cached_image_tokens", 1_000_000),
    "input_video_mtok": ("input_video_tokens", 1_000_000),
    "output_mtok": ("output_tokens", 1_000_000),
    "output_reasoning_mtok": ("reasoning_tokens", 1_000_000),
    "output_audio_mtok": ("output_audio_tokens", 1_000_000),
    "output_image_mtok": ("output_image_tokens", 1_000_000),
    "output_video_mtok": ("output_video_tokens", 1_000_000),
    "input_mchars": ("characters", 1_000_000),
    # An hour of audio has one price, however it is spelled.
    "output_audio_hours": ("audio_seconds", 3_600),
    "input_audio_hours": ("audio_seconds", 3_600),
    "audio_hours": ("audio_seconds", 3_600),
    "web_searches_kcount": ("web_searches", 1_000),
    "rerank_searches_kcount": ("rerank_searches", 1_000),
    "requests_kcount": ("requests", 1_000),
}

_MAKERS = (
    "openai", "anthropic", "google", "cohere", "mistral", "deepseek", "x-ai", "moonshotai",
    "minimax", "perplexity", "voyageai", "elevenlabs", "meta",
)  # fmt: skip
"""Whose models are meant when no provider is named: those that make them, not those that host."""

_ALIASES = {
    "bedrock": "aws",
    "aws-bedrock": "aws",
    "amazon-bedrock": "aws",
    "vertex": "google",
    "vertexai": "google",
    "vertex-ai": "google",
    "google-vertex": "google",
    "gemini": "google",
    "google-gemini": "google",
    "azure-openai": "azure",
    "xai": "x-ai",
    "mistralai": "mistral",
    "voyage": "voyageai",
}
_STANDARD = {
    # `on_demand` is what Groq calls it.
    "service_tier": ("default", "standard", "auto", "on_demand"),
    "speed": ("standard",),
}
_AUDIO = frozenset({"input_audio_tokens", "output_audio_tokens"})
_GROQ_LEAST_SECONDS = Decimal(10)
_REMEMBERED = 4_096
"""Names that were looked up."""


class GenaiCatalogue:
    """A `Catalogue` of the installed package."""

    version = VERSION

    def __init__(self) -> None:
        self._by_id = {one.id: one for one in _providers}
        self._model = lru_cache(_REMEMBERED)(self._look_up)
        self._maker = lru_cache(_REMEMBERED)(self._find_maker)

    def provider_of(self, model: str) -> str | None:
        """Who makes the model; None when nobody does, or several."""
        return self._maker(model)

    def _find_maker(self, model: str) -> str | None:
        name = _bare(model)
        # What the name says wins: others host models that they do not make.
        found = [one for one in _MAKERS if _says(self._by_id[one], name)] or _MAKERS
        having = [one for one in found if self._model(one, name) is not None]
        return having[0] if len(having) == 1 else self._prefix(model)

    def provider_id(self, provider: str) -> str | None:
        """The catalogue's name of a provider."""
        name = provider.strip().lower().replace("_", "-")
        name = _ALIASES.get(name, name)
        return name if name in self._by_id else None

    def model_id(self, provider: str, model: str) -> str | None:
        """The catalogue's name of a provider's model, None when it does not know it."""
        known = self.provider_id(provider)
        found = self._model(known, _bare(model, known)) if known else None
        return f"{found[0].id}/{found[1].id}" if found else None

    def find(
        self, provider: str | None, model: str, at: datetime, context: Mapping[str, str]
    ) -> Price | Unpriced:
        """The price of a model at an instant. `context` names other terms than the standard."""
        known = self.provider_id(provider) if provider else self.provider_of(model)
        if known is None:
            what = f"no provider {provider}" if provider else f"no single maker of {model}"
            return Unpriced(f"the catalogue has {what}")
        found = self._model(known, _bare(model, known))
        if found is None:
            return Unpriced(f"the catalogue has no model {model} of {known}")
        owner, info = found
        return _price(owner, info, at, _special(context))

    def models(self, provider: str | None, at: datetime) -> Iterator[KnownModel]:
        """The models that have a price at an instant, of one provider or of all."""
        wanted = None if provider is None else self.provider_id(provider)
        if provider is not None and wanted is None:
            return
        for owner in self._by_id.values() if wanted is None else [self._by_id[wanted]]:
            for info in owner.models:
                price = _price(owner, info, at, {})
                if isinstance(price, Price):
                    deprecated = bool(info.deprecated)
                    window = info.context_window
                    yield KnownModel(owner.id, info.id, info.name, window, deprecated, price)

    def _prefix(self, model: str) -> str | None:
        """The provider in `provider/model`."""
        head, slash, rest = model.partition("/")
        known = self.provider_id(head) if slash else None
        return known if known and self._model(known, _bare(model, known)) is not None else None

    def _look_up(self, provider: str, model: str) -> tuple[genai.Provider, genai.ModelInfo] | None:
        """The model that a provider offers by that name, and whose price it has."""
        for one in (provider, *(self._by_id[provider].fallback_model_providers or ())):
            owner = self._by_id.get(one)
            for info in owner.models if owner else ():
                if owner and _fits(info, model):
                    return owner, info
        return None


def _fits(info: genai.ModelInfo, model: str) -> bool:
    if info.id.lower() == model:
        return True
    return info.match.is_match(model) and _is_named(info.match, model)


def _says(provider: genai.Provider, model: str) -> bool:
    return provider.model_match is not None and provider.model_match.is_match(model)


def _bare(model: str, provider: str | None = None) -> str:
    name = model.strip().lower().removeprefix("models/")
    return name.removeprefix(f"{provider}/") if provider else name


def _is_named(clause: genai.MatchLogic, model: str) -> bool:
    """Whether a clause that matches also names this very model, not only how its name begins."""
    match clause:
        case genai.ClauseEquals():
            return clause.is_match(model)
        case genai.ClauseOr():
            return any(_is_named(one, model) for one in clause.or_)
        case genai.ClauseAnd():
            return clause.is_match(model) and any(_is_named(one, model) for one in clause.and_)
        case genai.ClauseStartsWith():
            text = clause.starts_with.lower()
            return model.startswith(text) and is_same_model("", text, model[len(text) :])
        case genai.ClauseEndsWith():
            text = clause.ends_with.lower()
            return model.endswith(text) and is_same_model(model[: -len(text)], text, "")
        case genai.ClauseContains():
            return names(clause.contains.lower(), model)
        case genai.ClauseRegex():
            found = re.search(clause.regex, model)
            return found is not None and is_same_model(
                model[: found.start()], found[0], model[found.end() :]
            )


def _special(context: Mapping[str, str]) -> Mapping[str, str]:
    """The terms that are not the standard ones."""
    return {key: text for key, text in context.items() if text not in _STANDARD.get(key, ())}


def _price(
    owner: genai.Provider, info: genai.ModelInfo, at: datetime, context: Mapping[str, str]
) -> Price | Unpriced:
    at = at.astimezone(UTC)
    chosen = _row(info, at)
    if chosen is None:
        return Unpriced(f"the catalogue has no price of {info.id} at that time")
    prices, began, suffix = chosen
    values = {key: value for key, value in prices.__dict__.items() if value is not None}
    if context:
        special = _variant(info, at, context)
        if special is None:
            terms = ", ".join(f"{key} {text}" for key, text in sorted(context.items()))
            return Unpriced(f"the catalogue has no price of {info.id} for {terms}")
        values |= special
        suffix += "".join(f"+{key}={text}" for key, text in sorted(context.items()))
    rates = _rates(values)
    if not rates:
        return Unpriced(f"the catalogue has no rates of {info.id}")
    short = owner.id == "groq" and info.id.startswith("whisper-large-v3")
    # Of some the catalogue has the text's rates alone; their audio costs many times as much.
    speaks = owner.id == "openai" and "-audio" in info.id
    return Price(
        id=f"{owner.id}/{info.id}{suffix}",
        source=PriceSource.CATALOGUE,
        provider=owner.id,
        model=info.id,
        rates=rates,
        catalogue=VERSION,
        valid_from=began,
        minimums={"audio_seconds": _GROQ_LEAST_SECONDS} if short else {},
        apart=_AUDIO if speaks else frozenset(),
    )


def _row(
    info: genai.ModelInfo, at: datetime
) -> tuple[genai.ModelPrice, datetime | None, str] | None:
    """The prices at an instant, since when they hold, and what tells them from others."""
    if isinstance(info.prices, genai.ModelPrice):
        return info.prices, None, ""
    for one in reversed(info.prices):
        match one.constraint:
            case None:
                return one.prices, None, ""
            case genai.StartDateConstraint(start_date=day) if one.constraint.active(at):
                began = datetime.combine(day, time_of_day(), UTC)
                return one.prices, began, f"@{day.isoformat()}"
            case genai.TimeOfDateConstraint(start_time=start) if one.constraint.active(at):
                return one.prices, None, f"@{start.isoformat('minutes')}"
    return None


def _variant(
    info: genai.ModelInfo, at: datetime, context: Mapping[str, str]
) -> Mapping[str, "Decimal | genai.TieredPrices"] | None:
    """The rates that special terms change; None unless every one of the terms is known."""
    changed: dict[str, Decimal | genai.TieredPrices] = {}
    unknown = set(context)
    for variant in info.price_variants or ():
        if variant.constraint is not None and not variant.constraint.active(at):
            continue
        if all(context.get(key) == text for key, text in variant.when.items()):
            unknown -= set(variant.when)
            for key, value in variant.prices.__dict__.items():
                if value is not None:
                    changed.setdefault(key, value)
    return None if unknown else changed


def _rates(values: Mapping[str, "Decimal | genai.TieredPrices"]) -> Mapping[str, Rate]:
    rates = {}
    for price_key, (unit, per) in _PRICE_KEYS.items():
        value = values.get(price_key)
        if isinstance(value, genai.TieredPrices):
            tiers: Sequence[Tier] = [Tier(one.start, one.price) for one in value.tiers]
            rates[unit] = Rate(value.base, per, tuple(sorted(tiers, key=lambda one: one.above)))
        elif value is not None:
            rates[unit] = Rate(value, per)
    return rates
