"""What answers look like, for the OpenAPI document; `encode` and `summary` make them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from entitlements.api.views import Number, Time


class LimitsView(BaseModel):
    """Limits; one that is absent does not limit."""

    monthlyTokenLimit: Number | None = None
    monthlyCostLimitUsd: Number | None = None
    requestsPerMinute: int | None = None
    requestsPerHour: int | None = None
    requestsPerDay: int | None = None
    tokensPerMinute: int | None = None


class AllocationView(BaseModel):
    """Credits that are refilled by themselves."""

    interval: str
    amount: Number
    maxRollover: Number | None = None
    priority: int


class PlanFeatureView(BaseModel):
    """A feature that a plan entitles to."""

    featureKey: str
    type: Literal["metered", "static", "boolean"]
    config: str | None = None
    interval: str | None = None
    isSoftLimit: bool | None = None
    amount: Number | None = None


class PlanView(LimitsView):
    """A plan."""

    id: str
    number: int = Field(description="Counts the plans of a namespace.")
    key: str
    name: str
    description: str | None = None
    creditAllocation: AllocationView | None = None
    features: list[PlanFeatureView]
    stripePriceIds: list[str]
    creditsPerPayment: Number | None = None
    metadata: dict[str, str]
    version: int = Field(description="Grows with each change.")
    createdAt: Time
    updatedAt: Time


class BanView(BaseModel):
    """Since when a subject may do nothing, and why."""

    since: Time
    reason: str


class MemberView(BaseModel):
    """A subject's plan, and what holds for it."""

    subject: str
    banned: bool
    plan: PlanView | None = None
    assignedAt: Time | None = None
    ban: BanView | None = None
    overrides: LimitsView = Field(description="null takes a limit of the plan away.")
    limits: LimitsView = Field(description="Those that hold.")


class HappeningView(BaseModel):
    """Something that happened to a subject."""

    id: str
    time: Time
    type: str
    source: str
    plan: str | None = None
    reason: str | None = None
    data: dict[str, Any] | None = None


class ReceivedView(BaseModel):
    """What became of an event of Stripe that was sent now."""

    received: Literal[True]
    id: str
    outcome: Literal["applied", "scheduled", "ignored", "stale", "duplicate"]
    reason: str | None = None
    plan: str | None = None


class StripeEventView(BaseModel):
    """An event of Stripe, and what became of it."""

    id: str
    type: str
    createdAt: Time
    receivedAt: Time
    outcome: Literal["applied", "scheduled", "ignored", "stale"]
    reason: str | None = None
    subject: str | None = None
    subscription: str | None = None
    plan: str | None = None


class FiguresView(BaseModel):
    """What was used."""

    costUsd: Number
    requests: Number
    tokens: Number
    inputTokens: Number
    outputTokens: Number
    cachedTokens: Number


class ModelUsageView(FiguresView):
    """What was used of one model."""

    model: str


class StretchView(FiguresView):
    """What was used in a stretch of time."""

    unpricedRequests: Number
    byModel: list[ModelUsageView]


class MonthView(StretchView):
    """What was used since the start of this month (UTC)."""

    model_config = ConfigDict(populate_by_name=True)

    begin: Time = Field(alias="from")


class UsageSummaryView(BaseModel):
    """What one subject, or all of them, have used."""

    subject: str | None = None
    total: StretchView
    currentMonth: MonthView
    asOf: Time
