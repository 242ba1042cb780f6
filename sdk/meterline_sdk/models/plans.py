"""Plans, who has which, decisions, what was used."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from meterline_sdk.models._common import Extra


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of a plan or a subject; None does not limit."""

    monthly_token_limit: int | None = None
    monthly_cost_limit_usd: Decimal | None = None
    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditAllocation:
    """Credits that are refilled by themselves."""

    interval: str
    amount: Decimal
    max_rollover: Decimal | None = None
    priority: int = 1
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFeature:
    """A feature that a plan entitles to."""

    feature_key: str
    type: str
    config: str | None = None
    interval: str | None = None
    amount: Decimal | None = None
    is_soft_limit: bool | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What subjects may do; a limit of None does not limit."""

    key: str
    name: str
    id: str | None = None
    number: int | None = None
    description: str | None = None
    monthly_token_limit: int | None = None
    monthly_cost_limit_usd: Decimal | None = None
    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None
    credit_allocation: CreditAllocation | None = None
    features: list[PlanFeature] = field(default_factory=list)
    stripe_price_ids: list[str] = field(default_factory=list)
    credits_per_payment: Decimal | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    version: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ban:
    """Since when a subject is banned, and why."""

    since: datetime
    reason: str = ""
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A subject's plan. `limits` are those that hold: the plan's, with the overrides."""

    subject: str
    banned: bool
    limits: Limits
    plan: Plan | None = None
    overrides: dict[str, Decimal | None] = field(default_factory=dict)
    ban: Ban | None = None
    assigned_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChange:
    """Something that happened to a subject: a plan, an override, a ban."""

    id: str
    type: str
    time: datetime
    source: str | None = None
    plan: str | None = None
    reason: str | None = None
    data: dict[str, Any] | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """How full a limit is."""

    limit_type: str
    limit: Decimal
    current: Decimal
    remaining: Decimal | None = None
    resets_in_seconds: int | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedHold:
    """What a check has set aside."""

    id: str
    feature_key: str
    amount: Decimal
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to "may this subject do this now?".

    Refused: `limit_type` says what is in the way, `current` and `limit` how full it is, and
    `retry_after` in how many seconds to ask again. Allowed: `limits` are all that hold, `holds`
    what was set aside; send `check_id` with the record of the call. `degraded`: nobody could be
    asked; the policy answered.
    """

    allowed: bool
    subject: str | None = None
    check_id: str | None = None
    plan: str | None = None
    limits: list[LimitState] = field(default_factory=list)
    holds: list[OpenedHold] = field(default_factory=list)
    limit_type: str | None = None
    limit: Decimal | None = None
    current: Decimal | None = None
    retry_after: Decimal | None = None
    detail: str | None = None
    degraded: bool = False
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUsage:
    """What was used of a model."""

    model: str
    cost_usd: Decimal
    requests: int
    tokens: int
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What was used in a stretch of time. Calls without a price have no part in the cost."""

    cost_usd: Decimal
    requests: int
    tokens: int
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    unpriced_requests: int = 0
    by_model: list[ModelUsage] = field(default_factory=list)
    from_: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTotals:
    """What a subject, or all of them, have used: in all, and in this month (UTC)."""

    total: Stretch
    current_month: Stretch
    subject: str | None = None
    as_of: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StripeEvent:
    """An event of Stripe, and what became of it."""

    id: str
    type: str
    outcome: str | None = None
    subject: str | None = None
    extra: Extra = field(default_factory=dict)
