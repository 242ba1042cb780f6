"""Records of model calls, and prices."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from meterline_sdk.models._common import Extra


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPrice:
    """US dollars for `per` units; a tier holds for calls with more than `above` input tokens."""

    price: Decimal
    per: int
    tiers: list[dict[str, Any]] | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceStamp:
    """The price that was applied, and where it came from."""

    id: str
    source: str
    model: str
    provider: str | None = None
    catalogue: str | None = None
    valid_from: datetime | None = None
    rates: dict[str, UnitPrice] = field(default_factory=dict)
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """A call of a model, with its price. `cost_usd` is None when `priced` is `unpriced`."""

    id: str
    account_id: str | None = None
    time: datetime | None = None
    model_id: str | None = None
    provider: str | None = None
    usage_type: str | None = None
    context: str | None = None
    priced: str | None = None
    unpriced_reason: str | None = None
    cost_usd: Decimal | None = None
    price: PriceStamp | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    total_tokens: int | None = None
    reasoning_tokens: int | None = None
    audio_duration_seconds: Decimal | None = None
    usage: dict[str, Decimal] = field(default_factory=dict)
    estimated: bool = False
    key: str | None = None
    query: str | None = None
    tags: list[str] = field(default_factory=list)
    conversation_id: str | None = None
    transaction_id: str | None = None
    description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTotals:
    """Sums over the calls of a model."""

    cost_usd: Decimal
    requests: int
    model_id: str | None = None
    provider: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    total_tokens: int = 0
    unpriced_requests: int = 0
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextTotals:
    """Sums over the calls of a context."""

    context: str
    cost_usd: Decimal
    requests: int
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    total_tokens: int = 0
    unpriced_requests: int = 0
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageSummary:
    """What records add up to. Calls without a price have no part in the cost."""

    total_cost_usd: Decimal
    total_input_tokens: int
    total_output_tokens: int
    total_cached_tokens: int = 0
    total_tokens: int = 0
    total_requests: int = 0
    unpriced_requests: int = 0
    by_model: list[ModelTotals] = field(default_factory=list)
    by_context: list[ContextTotals] = field(default_factory=list)
    as_of: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedTotals:
    """Sums over tracked calls of one key, tag or conversation."""

    messages: int
    cost_usd: Decimal
    key: str | None = None
    tag: str | None = None
    conversation_id: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    total_tokens: int = 0
    unpriced_requests: int = 0
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedSummary:
    """Tracked calls by one of their properties."""

    by: str
    items: list[TrackedTotals]
    as_of: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a call costs. `cost_usd` is None when `priced` is `unpriced`."""

    priced: str
    cost_usd: Decimal | None = None
    provider: str | None = None
    unpriced_reason: str | None = None
    price: PriceStamp | None = None
    billed: dict[str, Decimal] | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model with its price of now."""

    model_id: str
    provider: str | None = None
    name: str | None = None
    context_window: int | None = None
    deprecated: bool = False
    priced: str | None = None
    price_id: str | None = None
    valid_from: datetime | None = None
    rates: dict[str, UnitPrice] = field(default_factory=dict)
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A price of one's own."""

    id: str
    model: str
    provider: str | None = None
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    rates: dict[str, UnitPrice] = field(default_factory=dict)
    note: str | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    extra: Extra = field(default_factory=dict)
