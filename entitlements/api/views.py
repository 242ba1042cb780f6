"""What answers look like, for the OpenAPI document; `encode` makes them."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

Time = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]
Number = Annotated[float, Field(description="A JSON number with every digit.")]


class PeriodView(BaseModel):
    """A stretch of time with its start and without its end."""

    model_config = ConfigDict(populate_by_name=True)

    begin: Time = Field(alias="from")
    end: Time = Field(alias="to")


class RecurrenceView(BaseModel):
    """How often something recurs."""

    interval: str = Field(description="DAY, WEEK, MONTH, YEAR or an ISO 8601 duration.")
    intervalISO: str
    anchor: Time
    timeZone: str | None = None


class FeatureView(BaseModel):
    """A feature."""

    id: str
    key: str
    name: str
    metadata: dict[str, str]
    createdAt: Time
    updatedAt: Time
    archivedAt: Time | None = None
    meterSlug: str | None = None
    meterGroupByFilters: dict[str, str] | None = None
    advancedMeterGroupByFilters: dict[str, dict[str, str | list[str]]] | None = None


class EntitlementView(BaseModel):
    """An entitlement; what it has depends on its type."""

    id: str
    type: Literal["metered", "static", "boolean"]
    subjectKey: str
    featureKey: str
    featureId: str
    metadata: dict[str, str]
    createdAt: Time
    updatedAt: Time
    activeFrom: Time
    activeTo: Time | None = None
    deletedAt: Time | None = None
    usagePeriod: RecurrenceView | None = None
    currentUsagePeriod: PeriodView | None = None
    isSoftLimit: bool | None = None
    isUnlimited: bool | None = None
    preserveOverageAtReset: bool | None = None
    measureUsageFrom: Time | None = None
    lastReset: Time | None = Field(None, description="The start of the current usage period.")
    issueAfterReset: Number | None = None
    issueAfterResetPriority: int | None = None
    config: str | None = None


class ExpirationView(BaseModel):
    """How an expiry was given."""

    duration: str
    count: int


class GrantAnnotations(BaseModel):
    """Where a grant comes from."""

    issueAfterReset: bool


class GrantView(BaseModel):
    """A grant."""

    id: str
    entitlementId: str
    amount: Number
    priority: int
    effectiveAt: Time
    expiration: ExpirationView | None = None
    expiresAt: Time | None = None
    voidedAt: Time | None = None
    minRolloverAmount: Number
    maxRolloverAmount: Number
    recurrence: RecurrenceView | None = None
    nextRecurrence: Time | None = None
    metadata: dict[str, str]
    annotations: GrantAnnotations | None = None
    createdAt: Time
    updatedAt: Time


class ValueView(BaseModel):
    """Whether there is access. Figures are those of a metered entitlement in force."""

    hasAccess: bool
    balance: Number | None = None
    usage: Number | None = None
    overage: Number | None = None
    totalAvailableGrantAmount: Number | None = None
    held: Number | None = None
    available: Number | None = None
    asOf: Time | None = Field(None, description="Up to when acknowledged events are counted.")
    grantBalances: dict[str, float] | None = None
    config: str | None = Field(None, description="Of a static entitlement, as it was given.")


class AccessView(BaseModel):
    """The values of all features of a subject, by feature key."""

    entitlements: dict[str, ValueView]


class WindowView(BaseModel):
    """A window of history."""

    period: PeriodView
    usage: Number
    balanceAtStart: Number
    overageAtStart: Number


class GrantUsageView(BaseModel):
    """What a grant paid."""

    grantId: str
    usage: Number


class SegmentView(BaseModel):
    """A stretch of history in which nothing but usage changed balances."""

    period: PeriodView
    usage: Number
    overage: Number
    overageAtStart: Number
    balanceAtStart: Number
    grantBalancesAtStart: dict[str, float]
    balanceAtEnd: Number
    grantBalancesAtEnd: dict[str, float]
    grantUsages: list[GrantUsageView]
    endsInReset: bool | None = None
    isRollover: bool | None = None


class HistoryView(BaseModel):
    """The same time told in two ways."""

    windowedHistory: list[WindowView]
    burndownHistory: list[SegmentView]


class _PageView(BaseModel):
    totalCount: int
    page: int
    pageSize: int


class FeaturePage(_PageView):
    """A page of features."""

    items: list[FeatureView]


class EntitlementPage(_PageView):
    """A page of entitlements."""

    items: list[EntitlementView]


class GrantPage(_PageView):
    """A page of grants."""

    items: list[GrantView]
