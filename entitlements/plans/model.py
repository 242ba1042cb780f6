"""The things of plans, as values. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from entitlements.balance.exact import ZERO
from entitlements.model import EntitlementType
from meterline.kernel.periods import Interval


@dataclass(frozen=True, slots=True)
class Limits:
    """What a subject may use at most; None is no limit. 0 allows nothing."""

    monthly_tokens: Decimal | None = None
    """Tokens in a calendar month of UTC."""
    monthly_cost_usd: Decimal | None = None
    requests_per_minute: int | None = None
    requests_per_hour: int | None = None
    requests_per_day: int | None = None
    tokens_per_minute: int | None = None

    def overridden(self, overrides: Mapping[str, Decimal | int | None]) -> "Limits":
        """These limits with some of them replaced, by name."""
        return replace(self, **overrides) if overrides else self  # type: ignore[arg-type]

    @property
    def has_rates(self) -> bool:
        """Whether any of them is about speed."""
        return any(getattr(self, name) is not None for name in RATES)


LIMIT_NAMES = tuple(one.name for one in fields(Limits))
RATES = ("requests_per_minute", "requests_per_hour", "requests_per_day", "tokens_per_minute")

Overrides = Mapping[str, Decimal | int | None]
"""Limits of one subject by name; None takes a limit away."""


@dataclass(frozen=True, slots=True)
class CreditAllocation:
    """Credits that a plan refills by itself: `amount` at the start and after each interval.

    Of what is left of a refill at the next one, at most `max_rollover` is kept for one interval
    more.
    """

    interval: Interval
    amount: Decimal
    max_rollover: Decimal = ZERO
    priority: int = 1


@dataclass(frozen=True, slots=True)
class PlanFeature:
    """A feature that a plan entitles to."""

    key: str
    type: EntitlementType
    config: str | None = None
    """JSON text, of a static one."""
    interval: Interval | None = None
    """Usage period of a metered one, on the calendar of UTC."""
    amount: Decimal | None = None
    """What a metered one has in each usage period; None for nothing but grants."""
    is_soft_limit: bool = False


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """What a person says of a plan."""

    key: str
    name: str
    description: str | None = None
    limits: Limits = Limits()
    credits: CreditAllocation | None = None
    features: tuple[PlanFeature, ...] = ()
    stripe_price_ids: tuple[str, ...] = ()
    credits_per_payment: Decimal | None = None
    """Credits that a payment of one of the prices adds, beside the refill."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """A plan as it is kept. `version` grows with each change."""

    id: str
    number: int
    """Counts the plans of a namespace."""
    namespace: str
    spec: PlanSpec
    version: int
    created_at: datetime
    updated_at: datetime

    @property
    def key(self) -> str:
        return self.spec.key


@dataclass(frozen=True, slots=True)
class Ban:
    """Why and since when a subject may do nothing."""

    at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class Member:
    """What plans know of a subject: its plan, its overrides and whether it is banned."""

    namespace: str
    subject: str
    plan: Plan | None
    overrides: Overrides = field(default_factory=dict)
    assigned_at: datetime | None = None
    ban: Ban | None = None
    refill_anchor: datetime | None = None
    """When the first refill of its present credits was."""

    @property
    def limits(self) -> Limits:
        """The limits that hold for the subject."""
        base = self.plan.spec.limits if self.plan else Limits()
        return base.overridden(self.overrides)


class Happening(StrEnum):
    """What can happen to a subject."""

    ASSIGNED = "plan.assigned"
    REMOVED = "plan.removed"
    OVERRIDDEN = "plan.overridden"
    BANNED = "user.banned"
    UNBANNED = "user.unbanned"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that happened to a subject."""

    id: str
    at: datetime
    kind: Happening
    plan: str | None
    """Key of the plan that it has since."""
    reason: str | None
    source: str
    """Who did it: `api`, `stripe`, `parmot`."""
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What the caller is about to use, as far as it knows."""

    tokens: Decimal | None = None
    cost_usd: Decimal | None = None
    credits: Decimal | None = None


class Outcome(StrEnum):
    """Why a request is refused, in classes."""

    BANNED = "banned"
    FEATURE = "feature"
    USAGE = "usage"
    RATE = "rate"


@dataclass(frozen=True, slots=True)
class LimitState:
    """A limit and how far it is used, at one instant."""

    name: str
    """As callers know it: `monthlyTokenLimit`, `requestsPerMinute`…"""
    limit: Decimal
    current: Decimal
    resets_in_seconds: int
    """Until the month ends, or until something leaves the window."""
    window_seconds: int | None = None
    """Of a rate."""

    @property
    def remaining(self) -> Decimal:
        """What is left, never below zero."""
        return max(self.limit - self.current, ZERO)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request must not be made now."""

    outcome: Outcome
    limit_type: str
    detail: str
    limit: Decimal | None = None
    current: Decimal | None = None
    retry_after_seconds: int | None = None
    window_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class OpenedHold:
    """An amount that a check has set aside."""

    id: str
    feature: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to "may this subject do this now?"."""

    subject: str
    check_id: str
    plan: str | None
    refusal: Refusal | None
    limits: Sequence[LimitState] = ()
    holds: Sequence[OpenedHold] = ()

    @property
    def allowed(self) -> bool:
        return self.refusal is None
