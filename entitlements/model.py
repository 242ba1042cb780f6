"""What is kept of features, entitlements and grants."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from entitlements.access import Lifetime
from entitlements.balance import Grant, Metering, Terms
from meterline.kernel.periods import Recurrence


@dataclass(frozen=True, slots=True)
class Feature:
    """What is sold. With a meter, its usage is what the meter says of the allowed events."""

    id: str
    namespace: str
    key: str
    name: str
    meter_slug: str | None
    filters: Mapping[str, tuple[str, ...]]
    """For each groupBy key the values of events that count."""
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    archived_at: datetime | None = None


class EntitlementType(StrEnum):
    """How an entitlement answers whether there is access."""

    METERED = "metered"
    STATIC = "static"
    BOOLEAN = "boolean"


@dataclass(frozen=True, slots=True)
class MeteredRules:
    """What only a metered entitlement says, beside its usage period."""

    measure_from: datetime
    is_soft_limit: bool = False
    preserve_overage_at_reset: bool = False
    issue_after_reset: Decimal | None = None
    issue_after_reset_priority: int = 1


@dataclass(frozen=True, slots=True)
class Entitlement:
    """One subject's right to one feature. Only its end is ever written after it was made."""

    id: str
    namespace: str
    subject: str
    feature_id: str
    feature_key: str
    type: EntitlementType
    usage_period: Recurrence | None
    """Always there when metered."""
    metered: MeteredRules | None
    config: str | None
    metadata: Mapping[str, str]
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None

    @property
    def lifetime(self) -> Lifetime:
        """A metered one is in force as soon as it measures, which may be before it was made."""
        start = self.metered.measure_from if self.metered else self.created_at
        return Lifetime(start, self.ended_at)

    def terms(self, metering: Metering) -> Terms:
        """The terms of a metered entitlement whose meter has this metering."""
        assert self.metered is not None and self.usage_period is not None
        return Terms(
            measure_from=self.metered.measure_from,
            usage_period=self.usage_period,
            metering=metering,
            preserve_overage_at_reset=self.metered.preserve_overage_at_reset,
        )


@dataclass(frozen=True, slots=True)
class Expiration:
    """How an expiry was given: so many times a duration after the start."""

    duration: str
    count: int


@dataclass(frozen=True, slots=True)
class IssuedGrant:
    """A grant, and what is kept of it beside what balances need."""

    grant: Grant
    namespace: str
    entitlement_id: str
    expiration: Expiration | None
    issued_after_reset: bool
    metadata: Mapping[str, str]
    updated_at: datetime
