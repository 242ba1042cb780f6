"""What the server answers, as plain values. Amounts are `Decimal` or `int`, times aware datetimes.

What a newer server adds is kept in `extra`, by its name on the wire.
"""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

Extra = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A usage event as it was accepted (CloudEvents 1.0)."""

    id: str
    source: str
    type: str
    subject: str | None = None
    time: datetime | None = None
    data: Any = None
    specversion: str = "1.0"
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event with when it came, and what is wrong with it."""

    event: Event
    ingested_at: datetime
    stored_at: datetime | None = None
    validation_error: str | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """An aggregation over events of one type."""

    id: str
    slug: str
    event_type: str
    aggregation: str
    value_property: str | None = None
    group_by: dict[str, str] | None = None
    name: str | None = None
    description: str | None = None
    event_from: datetime | None = None
    metadata: dict[str, str] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterRow:
    """A value of one window and one group."""

    value: Decimal | None
    window_start: datetime | None = None
    window_end: datetime | None = None
    subject: str | None = None
    group_by: dict[str, str | None] | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterResult:
    """The answer of a meter's query."""

    data: list[MeterRow]
    from_: datetime | None = None
    to: datetime | None = None
    window_size: str | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who uses."""

    key: str
    id: str | None = None
    display_name: str | None = None
    metadata: dict[str, Any] | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalToken:
    """A short-lived token for one subject's browser; `token` is in the answer to its making."""

    id: str
    subject: str
    token: str | None = None
    expires_at: datetime | None = None
    allowed_meter_slugs: list[str] | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """What is sold."""

    id: str
    key: str
    name: str
    meter_slug: str | None = None
    metadata: dict[str, str] | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """What a subject may use of a feature."""

    id: str
    type: str
    subject_key: str
    feature_key: str
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An amount that an entitlement may use."""

    id: str
    entitlement_id: str
    amount: Decimal
    priority: int = 0
    effective_at: datetime | None = None
    expires_at: datetime | None = None
    voided_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """Whether a subject has access now. `degraded`: nobody could be asked; the policy answered."""

    has_access: bool
    balance: Decimal | None = None
    usage: Decimal | None = None
    overage: Decimal | None = None
    held: Decimal | None = None
    available: Decimal | None = None
    as_of: datetime | None = None
    config: str | None = None
    degraded: bool = False
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to "may this subject do this now?".

    `degraded`: nobody could be asked; the policy answered.
    """

    allowed: bool
    limit_type: str | None = None
    limit: Decimal | None = None
    current: Decimal | None = None
    retry_after: Decimal | None = None
    degraded: bool = False
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """An amount set aside on an entitlement, until it is confirmed, released, or expires."""

    id: str
    status: str
    amount: Decimal
    confirmed_amount: Decimal | None = None
    expires_at: datetime | None = None
    created_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedTransaction:
    """The answer to the start of a usage transaction. Go on only if `continue_` is true."""

    transaction_id: str
    continue_: bool
    balance: Decimal | None = None
    credits_used: Decimal | None = None
    message: str | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedTransaction:
    """The answer to the end of a usage transaction."""

    credits_used: Decimal | None = None
    balance: Decimal | None = None
    balance_adjustment: Decimal | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRecord:
    """A call of a model, with its price. `cost_usd` is None when `priced` is `unpriced`."""

    id: str
    model_id: str | None = None
    priced: str | None = None
    cost_usd: Decimal | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsagePage:
    """A page of records."""

    items: list[UsageRecord]
    next_cursor: str | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a call costs. `cost_usd` is None when `priced` is `unpriced`."""

    priced: str
    cost_usd: Decimal | None = None
    extra: Extra = field(default_factory=dict)
