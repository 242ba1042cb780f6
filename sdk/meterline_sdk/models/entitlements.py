"""Features, entitlements, grants, balances, holds."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from meterline_sdk.models._common import Extra


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """What is sold."""

    id: str
    key: str
    name: str
    meter_slug: str | None = None
    meter_group_by_filters: dict[str, str] | None = None
    metadata: dict[str, str] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    archived_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsagePeriod:
    """How often usage starts anew."""

    interval: str
    anchor: datetime | None = None
    interval_iso: str | None = None
    time_zone: str | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of time: `from_` is part of it, `to` is not."""

    from_: datetime
    to: datetime
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """Whether a subject has access now. `degraded`: nobody could be asked; the policy answered."""

    has_access: bool
    balance: Decimal | None = None
    usage: Decimal | None = None
    overage: Decimal | None = None
    total_available_grant_amount: Decimal | None = None
    held: Decimal | None = None
    available: Decimal | None = None
    as_of: datetime | None = None
    grant_balances: dict[str, Decimal] | None = None
    config: str | None = None
    degraded: bool = False
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """What a subject may use of a feature. `value` is told to the browser of a subject only."""

    id: str
    type: str
    subject_key: str
    feature_key: str
    feature_id: str | None = None
    usage_period: UsagePeriod | None = None
    current_usage_period: Span | None = None
    measure_usage_from: datetime | None = None
    last_reset: datetime | None = None
    is_soft_limit: bool | None = None
    issue_after_reset: Decimal | None = None
    issue_after_reset_priority: int | None = None
    preserve_overage_at_reset: bool | None = None
    config: str | None = None
    metadata: dict[str, str] | None = None
    active_from: datetime | None = None
    active_to: datetime | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    value: Value | None = None
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
    max_rollover_amount: Decimal | None = None
    min_rollover_amount: Decimal | None = None
    recurrence: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    created_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowedValue:
    """Usage, and the balance at its start, of one window."""

    period: Span
    usage: Decimal | None = None
    balance_at_start: Decimal | None = None
    overage_at_start: Decimal | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """A balance over time: by window, and what each grant paid between two changes."""

    windowed_history: list[WindowedValue]
    burndown_history: list[dict[str, Any]]
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """An amount set aside on an entitlement, until it is confirmed, released, or expires."""

    id: str
    status: str
    amount: Decimal
    subject_key: str | None = None
    feature_key: str | None = None
    entitlement_id: str | None = None
    on_excess: str | None = None
    ttl_seconds: Decimal | None = None
    confirmed_amount: Decimal | None = None
    excess_amount: Decimal | None = None
    released_amount: Decimal | None = None
    model: str | None = None
    metadata: dict[str, str] | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    closed_at: datetime | None = None
    extra: Extra = field(default_factory=dict)
