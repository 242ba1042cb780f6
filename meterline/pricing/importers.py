"""Price files of others: litellm's `model_prices_and_context_window.json`, models.dev's `api.json`.

Pure: decoded JSON, whose numbers are `Decimal` or `int`, in; prices out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from meterline.pricing.rates import Rate, Tier

MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Imported:
    """The price of one model. `ignored` are costs that there is no unit for."""

    provider: str
    model: str
    rates: Mapping[str, Rate]
    ignored: tuple[str, ...] = field(default=())


_LITELLM: Mapping[str, tuple[str, int]] = {
    "input_cost_per_token": ("input_tokens", MILLION),
    "output_cost_per_token": ("output_tokens", MILLION),
    "cache_read_input_token_cost": ("cached_tokens", MILLION),
    "cache_creation_input_token_cost": ("cache_write_tokens", MILLION),
    "cache_creation_input_token_cost_above_1hr": ("cache_write_1h_tokens", MILLION),
    "output_cost_per_reasoning_token": ("reasoning_tokens", MILLION),
    "input_cost_per_audio_token": ("input_audio_tokens", MILLION),
    "output_cost_per_audio_token": ("output_audio_tokens", MILLION),
    "input_cost_per_image_token": ("input_image_tokens", MILLION),
    "output_cost_per_image_token": ("output_image_tokens", MILLION),
    "input_cost_per_character": ("characters", MILLION),
    "input_cost_per_second": ("audio_seconds", 1),
    "output_cost_per_image": ("images", 1),
    "input_cost_per_query": ("rerank_searches", 1),
}
_ABOVE = {"_above_128k_tokens": 128_000, "_above_200k_tokens": 200_000}

_MODELS_DEV = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cached_tokens",
    "cache_write": "cache_write_tokens",
    "reasoning": "reasoning_tokens",
    "input_audio": "input_audio_tokens",
    "output_audio": "output_audio_tokens",
}
_OVER = {"context_over_200k": 200_000}


def litellm(body: Any) -> Iterator[Imported]:
    """The prices of litellm's file, whose costs are for one token each."""
    for name, entry in _objects(body):
        provider = entry.get("litellm_provider")
        if name == "sample_spec" or not isinstance(provider, str):
            continue
        costs = {key: cost for key, cost in entry.items() if "cost" in key and _is_cost(cost)}
        rates: dict[str, Rate] = {}
        used: set[str] = set()
        for key, (unit, per) in _LITELLM.items():
            if key not in costs:
                continue
            tiers = {
                above: costs[f"{key}{suffix}"] * per
                for suffix, above in _ABOVE.items()
                if f"{key}{suffix}" in costs
            }
            used |= {key, *(f"{key}{suffix}" for suffix in _ABOVE)}
            rates[unit] = Rate(costs[key] * per, per, _tiers(tiers))
        if rates:
            model = name.removeprefix(f"{provider}/")
            yield Imported(provider, model, rates, tuple(sorted(costs.keys() - used)))


def models_dev(body: Any) -> Iterator[Imported]:
    """The prices of models.dev's file, whose costs are for a million tokens each."""
    for provider, entry in _objects(body):
        for model, info in _objects(entry.get("models")):
            cost = info.get("cost")
            if not isinstance(cost, Mapping):
                continue
            rates: dict[str, Rate] = {}
            for key, unit in _MODELS_DEV.items():
                if not _is_cost(cost.get(key)):
                    continue
                dearer = {
                    above: Decimal(cost[over][key])
                    for over, above in _OVER.items()
                    if isinstance(cost.get(over), Mapping) and _is_cost(cost[over].get(key))
                }
                rates[unit] = Rate(Decimal(cost[key]), MILLION, _tiers(dearer))
            known = {*_MODELS_DEV, *_OVER}
            if rates:
                yield Imported(provider, model, rates, tuple(sorted(cost.keys() - known)))


FORMATS: Mapping[str, Callable[[Any], Iterator[Imported]]] = {
    "litellm": litellm,
    "models.dev": models_dev,
}


def _objects(body: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(body, Mapping):
        for name, entry in body.items():
            if isinstance(entry, Mapping):
                yield name, entry


def _is_cost(value: Any) -> bool:
    known = isinstance(value, int | Decimal) and not isinstance(value, bool)
    return known and Decimal(value).is_finite() and value >= 0


def _tiers(prices: Mapping[int, Decimal]) -> tuple[Tier, ...]:
    return tuple(Tier(above, prices[above]) for above in sorted(prices))
