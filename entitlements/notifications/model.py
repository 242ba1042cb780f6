"""The things of notifications, as values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

from meterline.kernel.periods import Interval, Period


class EventType(StrEnum):
    """What a rule watches."""

    BALANCE_THRESHOLD = "entitlements.balance.threshold"
    RESET = "entitlements.reset"
    EXHAUSTED = "entitlements.exhausted"
    GRANTS_EXPIRING = "grants.expiring"
    EVENTS_REJECTED = "events.rejected"


class ThresholdType(StrEnum):
    """What a threshold is compared with. The first two are old names of OpenMeter's."""

    NUMBER = "NUMBER"
    PERCENT = "PERCENT"
    BALANCE_VALUE = "balance_value"
    USAGE_VALUE = "usage_value"
    USAGE_PERCENTAGE = "usage_percentage"


class DeliveryState(StrEnum):
    """Where the delivery of an event to a channel is."""

    PENDING = "PENDING"
    """Not tried yet."""
    SENDING = "SENDING"
    """Being tried, or waiting for the next try."""
    RESENDING = "RESENDING"
    """Asked for once more, and not tried since."""
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    """Given up."""


@dataclass(frozen=True, slots=True)
class OldSecret:
    """A secret that was replaced; messages are signed with it too until `until`."""

    secret: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Channel:
    """A webhook that events can be sent to."""

    id: str
    namespace: str
    name: str
    url: str
    headers: Mapping[str, str]
    secret: str
    old_secrets: Sequence[OldSecret]
    disabled: bool
    disabled_reason: str | None
    """Why the channel was disabled by itself; None when a person did it."""
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Threshold:
    """A value that a balance or usage can reach."""

    type: ThresholdType
    value: Decimal


@dataclass(frozen=True, slots=True)
class FeatureRef:
    """A feature that a rule is limited to."""

    id: str
    key: str


@dataclass(frozen=True, slots=True)
class RuleSpec:
    """What a person says of a rule; `features` empty means every feature."""

    type: EventType
    name: str
    channels: tuple[str, ...]
    disabled: bool = False
    features: tuple[FeatureRef, ...] = ()
    thresholds: tuple[Threshold, ...] = ()
    lead_time: Interval | None = None
    """How long before a grant's expiry `grants.expiring` tells of it."""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule as it is kept."""

    id: str
    namespace: str
    spec: RuleSpec
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ExpiringGrant:
    """A grant that will expire, and what is left of it."""

    id: str
    balance: Decimal
    effective_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class EntitlementValue:
    """A metered entitlement at an instant: all that rules look at and payloads show."""

    namespace: str
    entitlement_id: str
    subject: str
    feature: FeatureRef
    at: datetime
    has_access: bool
    balance: Decimal
    usage: Decimal
    overage: Decimal
    total_available_grant_amount: Decimal
    period: Period
    """The usage period that holds `at`, cut by resets: every reset starts another one."""
    grants: Sequence[ExpiringGrant] = ()
    """The grants that are active or will be, and that expire."""
    documents: Mapping[str, Any] = field(default_factory=dict)
    """`entitlement`, `feature` and `subject` as the API shows them, where they are known."""
    is_told: bool = True
    """Whether a check is asked for when there is usage; else it has to be looked for."""


class ValueReader(Protocol):
    """Where the values of entitlements come from; the composition root fills it."""

    async def value(self, entitlement_id: str, at: datetime) -> EntitlementValue | None:
        """The value at `at`; None when it is not metered, or is not in force then or any more."""
        ...

    async def metered(self, namespace: str, after: str, limit: int) -> Sequence[str]:
        """Ids of metered entitlements in force, in order, from the one after id `after`."""
        ...

    async def feature(self, namespace: str, id_or_key: str) -> FeatureRef | None:
        """The feature with that id or key."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver, and what came of it. `status` is None when there was no answer."""

    at: datetime
    state: DeliveryState
    status: int | None
    body: str
    duration_ms: int
    url: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to one channel."""

    id: str
    event_id: str
    channel_id: str
    state: DeliveryState
    reason: str
    updated_at: datetime
    next_attempt_at: datetime | None
    attempts: Sequence[Attempt] = ()


@dataclass(frozen=True, slots=True)
class NewEvent:
    """What fired. `key` is what makes it fire once; None for tests, which may fire any time."""

    type: EventType
    rule_id: str
    at: datetime
    data: Mapping[str, Any]
    subject: str | None = None
    feature: FeatureRef | None = None
    key: str | None = None
    remember_until: datetime | None = None
    """When `key` can be forgotten, because it cannot come again."""
    annotations: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """An event as it is kept. `payload` is the very text that is signed and sent."""

    id: str
    namespace: str
    type: EventType
    rule: Rule
    created_at: datetime
    payload: str
    annotations: Mapping[str, Any]
    deliveries: Sequence[Delivery] = ()
