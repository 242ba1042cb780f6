"""Answers as JSON: numbers with every digit."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from entitlements.usage_records.model import SYSTEM_SUBJECT, Listed, Position, UsageRecord
from entitlements.usage_records.shape import camel, stamp_json, with_json_names
from entitlements.usage_records.stores.prices import OwnPrice
from entitlements.usage_records.summary import Figures, Summary, TrackedBy
from meterline.kernel.instants import format_instant
from meterline.kernel.quantity import format_number
from meterline.pricing.book import Quote
from meterline.pricing.rates import Costed, KnownModel, Price, Rate
from meterline.web.paging import encode_cursor

Json = dict[str, Any]

_SAID = ("inputTokens", "outputTokens", "cachedTokens")
_NUMBERS = ("totalTokens", "reasoningTokens", "cacheWriteTokens", "images", "characters")
_TEXTS = (
    "usageType", "context", "transactionId", "key", "tags", "conversationId", "query",
    "estimated", "description", "metadata", "terms", "priced", "unpricedReason",
)  # fmt: skip


def record_json(record: UsageRecord) -> Json:
    """A record. What nobody said of the three main counts is null."""
    data = record.data
    said: Mapping[str, str] = data.get("usage", {})
    subject = record.subject
    answer: Json = {
        "id": record.id,
        "accountId": None if subject == SYSTEM_SUBJECT else subject,
        "time": format_instant(record.time),
        "modelId": data.get("model"),
        "provider": data.get("provider"),
        **{name: _number(said.get(name)) for name in _SAID},
        "audioDurationSeconds": _number(said.get("audioSeconds")),
        "costUsd": _number(data.get("costUsd")),
        "usage": {name: _number(count) for name, count in said.items()},
        **{name: data[name] for name in _TEXTS if name in data},
        **{name: _number(data[name]) for name in _NUMBERS if name in data},
    }
    if "price" in data:
        answer["price"] = _numbered(data["price"])
    return answer


def listing_json(found: Sequence[Listed], limit: int) -> Json:
    """A page of records."""
    cursor = _cursor(found[-1].position) if len(found) == limit else None
    return {"items": [record_json(one.record) for one in found], "nextCursor": cursor}


def summary_json(summary: Summary) -> Json:
    """Totals, and the same by model and context."""
    return {
        **{_total(name): value for name, value in _figures(summary.total).items()},
        "byModel": [
            {"modelId": model or None, "provider": provider or None, **_figures(figures)}
            for (provider, model), figures in sorted(summary.by_model.items())
        ],
        "byContext": [
            {"context": context, **_figures(figures)}
            for context, figures in sorted(summary.by_context.items())
        ],
    }


_NAMES = {TrackedBy.KEY: "key", TrackedBy.TAG: "tag", TrackedBy.CONVERSATION: "conversationId"}


def tracked_json(found: Mapping[str, Figures], by: TrackedBy) -> Json:
    """Tracked calls by one of their properties."""
    items = []
    for text, figures in sorted(found.items()):
        told = _figures(figures)
        items.append({_NAMES[by]: text, "messages": told.pop("requests"), **told})
    return {"by": by.value, "items": items}


def as_of_json(as_of: datetime) -> Json:
    """How fresh an answer is."""
    return {"asOf": format_instant(as_of)}


def price_json(one: OwnPrice) -> Json:
    """A price of one's own."""
    price = one.price
    answer = {
        "id": price.id,
        "model": price.model,
        "provider": price.provider,
        "validFrom": None if price.valid_from is None else format_instant(price.valid_from),
        "validUntil": None if price.valid_until is None else format_instant(price.valid_until),
        "rates": rates_json(price.rates),
        "note": one.note,
        "createdAt": format_instant(one.made_at),
        "updatedAt": format_instant(one.updated_at),
    }
    return {name: value for name, value in answer.items() if value is not None}


def rates_json(rates: Mapping[str, Rate]) -> Json:
    """Rates by unit."""
    return {camel(key): _rate(rate) for key, rate in rates.items()}


def model_json(model: KnownModel, price: Price) -> Json:
    """A model with its price of now."""
    answer = {
        "modelId": model.id,
        "provider": model.provider,
        "name": model.name,
        "contextWindow": model.context_window,
        "deprecated": model.deprecated,
        "priced": price.source.value,
        "priceId": price.id,
        "validFrom": None if price.valid_from is None else format_instant(price.valid_from),
        "rates": rates_json(price.rates),
    }
    return {name: value for name, value in answer.items() if value is not None}


def cost_json(quote: Quote) -> Json:
    """What usage costs, or that it has no price."""
    answer: Json = {"priced": str(quote.state), "provider": quote.provider}
    if isinstance(quote.outcome, Costed):
        answer["costUsd"] = _number(format_number(quote.outcome.cost_usd))
        answer["price"] = _numbered(stamp_json(quote.outcome.stamp))
        answer["billed"] = {
            camel(key): _number(format_number(count)) for key, count in quote.outcome.lines.items()
        }
    else:
        answer |= {"costUsd": None, "unpricedReason": with_json_names(quote.outcome.reason)}
    return answer


def _rate(rate: Rate) -> Json:
    answer: Json = {"price": _plain(rate.price), "per": rate.per}
    if rate.tiers:
        answer["tiers"] = [
            {"above": tier.above, "price": _plain(tier.price)} for tier in rate.tiers
        ]
    return answer


def _figures(figures: Figures) -> Json:
    return {
        "costUsd": _plain(figures.cost_usd),
        "inputTokens": _plain(figures.input_tokens),
        "outputTokens": _plain(figures.output_tokens),
        "cachedTokens": _plain(figures.cached_tokens),
        "totalTokens": _plain(figures.total_tokens),
        "requests": _plain(figures.requests),
        "unpricedRequests": _plain(figures.unpriced),
    }


def _total(name: str) -> str:
    plain = name in ("totalTokens", "unpricedRequests")
    return name if plain else f"total{name[:1].upper()}{name[1:]}"


def _cursor(position: Position) -> str:
    return encode_cursor([position.micros, position.part, position.offset, position.index])


def _numbered(stamp: Mapping[str, Any]) -> Json:
    """A stamp with numbers for the texts of its prices."""
    rates = {
        name: {"price": _number(one["price"]), "per": one["per"]}
        for name, one in stamp["rates"].items()
    }
    return {**stamp, "rates": rates}


def _number(text: str | None) -> msgspec.Raw | None:
    return None if text is None else msgspec.Raw(text.encode())


def _plain(value: Decimal) -> msgspec.Raw:
    return msgspec.Raw(format_number(value).encode())


class _View(BaseModel):
    model_config = ConfigDict(alias_generator=camel, populate_by_name=True, extra="allow")


class UnitPriceView(_View):
    """US dollars for `per` units."""

    price: float
    per: int


class StampView(_View):
    """The price that was applied."""

    id: str
    source: str = Field(description="`override` or `catalogue`.")
    provider: str | None = None
    model: str
    catalogue: str | None = Field(None, description="The catalogue's version.")
    valid_from: str | None = None
    rates: dict[str, UnitPriceView]


class RecordView(_View):
    """A recorded call."""

    id: str
    account_id: str | None
    time: str = Field(json_schema_extra={"format": "date-time"})
    model_id: str | None
    provider: str | None
    usage_type: str
    context: str
    input_tokens: float | None
    output_tokens: float | None
    cached_tokens: float | None
    total_tokens: float
    audio_duration_seconds: float | None
    usage: dict[str, float] = Field(description="Every count that was said, by unit.")
    cost_usd: float | None = Field(description="null without a price.")
    priced: str = Field(description="`override`, `catalogue` or `unpriced`.")
    unpriced_reason: str | None = None
    price: StampView | None = None


class RecordBatch(_View):
    """Records, in the order of the request."""

    items: list[RecordView]


class RecordPage(_View):
    """Records, newest first."""

    items: list[RecordView]
    next_cursor: str | None
    as_of: datetime = Field(description="Records acknowledged until then are counted.")


class FiguresView(_View):
    """Sums over calls. Those without a price have no part in the cost."""

    cost_usd: float
    input_tokens: float
    output_tokens: float
    cached_tokens: float
    total_tokens: float
    unpriced_requests: float


class ModelFiguresView(FiguresView):
    """Of one model."""

    model_id: str | None
    provider: str | None
    requests: float


class ContextFiguresView(FiguresView):
    """Of one context."""

    context: str
    requests: float


class SummaryView(_View):
    """What records add up to."""

    total_cost_usd: float
    total_input_tokens: float
    total_output_tokens: float
    total_cached_tokens: float
    total_tokens: float
    total_requests: float
    unpriced_requests: float
    by_model: list[ModelFiguresView]
    by_context: list[ContextFiguresView]
    as_of: datetime


class TrackedView(FiguresView):
    """Of one key, tag or conversation."""

    key: str | None = None
    tag: str | None = None
    conversation_id: str | None = None
    messages: float


class TrackedPage(_View):
    """Tracked calls by one of their properties."""

    by: str
    items: list[TrackedView]
    as_of: datetime


class RateView(UnitPriceView):
    """A rate; a tier holds for all of a call with more than `above` input tokens."""

    tiers: list[dict[str, float]] = []


class PriceView(_View):
    """A price of one's own."""

    id: str
    model: str
    provider: str | None = None
    valid_from: str | None = None
    valid_until: str | None = None
    rates: dict[str, RateView]
    note: str | None = None
    created_at: str
    updated_at: str


class PricePage(_View):
    """Prices, oldest first."""

    items: list[PriceView]


class ModelView(_View):
    """A model with its price of now."""

    model_id: str
    provider: str | None = Field(None, description="Absent: an own price for all of them.")
    name: str | None = None
    context_window: int | None = None
    deprecated: bool
    priced: str
    price_id: str
    valid_from: str | None = None
    rates: dict[str, RateView]


class ModelPage(_View):
    """Models, by provider."""

    catalogue: str = Field(description="The catalogue's version.")
    items: list[ModelView]
    next_cursor: str | None


class CostView(_View):
    """What usage costs."""

    priced: str
    provider: str | None
    cost_usd: float | None = Field(description="null without a price.")
    unpriced_reason: str | None = None
    price: StampView | None = None
    billed: dict[str, float] | None = Field(None, description="Units at each rate.")
