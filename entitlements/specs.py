"""What callers ask for, and what is made of it. Pure: every refusal is a `ValidationError`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from zoneinfo import ZoneInfo

from entitlements.balance import Allowance, Grant
from entitlements.balance.exact import ZERO
from entitlements.limits import EntitlementLimits
from entitlements.model import (
    Entitlement,
    EntitlementType,
    Expiration,
    Feature,
    IssuedGrant,
    MeteredRules,
)
from meterline.kernel.errors import FieldError, ValidationError
from meterline.kernel.instants import LATEST
from meterline.kernel.periods import Interval, Recurrence, parse_interval, shift

_DURATIONS = {"HOUR": "PT1H"}


class MeasureFrom(StrEnum):
    """From when usage counts, said without a time."""

    CURRENT_PERIOD_START = "CURRENT_PERIOD_START"
    NOW = "NOW"


@dataclass(frozen=True, slots=True)
class RecurrenceSpec:
    """How often something recurs; without an anchor from a time that the context gives."""

    interval: Interval
    anchor: datetime | None = None
    zone: ZoneInfo | None = None

    def recurrence(self, anchor: datetime, zone: ZoneInfo | None = None) -> Recurrence:
        """The recurrence, with what it does not say itself."""
        return Recurrence(self.anchor or anchor, self.interval, self.zone or zone)


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """A feature to make."""

    key: str
    name: str
    meter_slug: str | None = None
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EntitlementSpec:
    """An entitlement to make. `feature` is an id or a key; `feature_key` must agree with it."""

    type: EntitlementType
    feature: str
    feature_key: str | None = None
    usage_period: RecurrenceSpec | None = None
    measure_from: datetime | MeasureFrom = MeasureFrom.NOW
    is_soft_limit: bool = False
    preserve_overage_at_reset: bool = False
    issue_after_reset: Decimal | None = None
    issue_after_reset_priority: int = 1
    config: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GrantSpec:
    """A grant to make."""

    amount: Decimal
    effective_at: datetime | None = None
    priority: int = 1
    expiration: Expiration | None = None
    expires_at: datetime | None = None
    min_rollover: Decimal = ZERO
    max_rollover: Decimal = ZERO
    recurrence: RecurrenceSpec | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ResetSpec:
    """A reset to do, now unless it says when."""

    effective_at: datetime | None = None
    retain_anchor: bool = False
    preserve_overage: bool | None = None


def fault(where: str, reason: str) -> ValidationError:
    """The error of one field."""
    return ValidationError(f"{where}: {reason}", errors=[FieldError(where, reason)])


def make_entitlement(
    spec: EntitlementSpec,
    feature: Feature,
    subject: str,
    *,
    entitlement_id: str,
    now: datetime,
    limits: EntitlementLimits,
) -> Entitlement:
    """The entitlement that a subject gets."""
    usage_period = spec.usage_period.recurrence(now) if spec.usage_period else None
    if usage_period is not None:
        check_interval("usagePeriod.interval", usage_period.interval, limits)
    metered = None
    if spec.type is EntitlementType.METERED:
        metered = _metered_rules(spec, feature, usage_period, now, limits)
    return Entitlement(
        id=entitlement_id,
        namespace=feature.namespace,
        subject=subject,
        feature_id=feature.id,
        feature_key=feature.key,
        type=spec.type,
        usage_period=usage_period,
        metered=metered,
        config=spec.config,
        metadata=spec.metadata,
        created_at=now,
        updated_at=now,
    )


def _metered_rules(
    spec: EntitlementSpec,
    feature: Feature,
    usage_period: Recurrence | None,
    now: datetime,
    limits: EntitlementLimits,
) -> MeteredRules:
    if usage_period is None:
        raise fault("usagePeriod", "is required of a metered entitlement")
    if feature.meter_slug is None:
        reason = f"the feature {feature.key} has no meter, so its entitlements cannot be metered"
        raise fault("type", reason)
    match spec.measure_from:
        case MeasureFrom.NOW:
            measure_from = now
        case MeasureFrom.CURRENT_PERIOD_START:
            measure_from = usage_period.period(now).start
        case datetime():
            measure_from = spec.measure_from
    count = _count(usage_period.interval, measure_from, now)
    check_steps("measureUsageFrom", "usage periods lie between it and now", count, limits)
    return MeteredRules(
        measure_from=measure_from,
        is_soft_limit=spec.is_soft_limit,
        preserve_overage_at_reset=spec.preserve_overage_at_reset,
        issue_after_reset=spec.issue_after_reset,
        issue_after_reset_priority=spec.issue_after_reset_priority,
    )


def make_grant(
    spec: GrantSpec,
    entitlement: Entitlement,
    *,
    grant_id: str,
    created_at: datetime,
    now: datetime,
    limits: EntitlementLimits,
) -> IssuedGrant:
    """The grant that an entitlement gets. On the calendar it goes by the entitlement's zone."""
    assert entitlement.metered is not None and entitlement.usage_period is not None
    zone = entitlement.usage_period.zone
    effective_at = spec.effective_at or now
    expires_at = spec.expires_at
    if spec.expiration is not None:
        expires_at = _expiry(spec.expiration, effective_at, zone)
    if expires_at is not None and expires_at <= effective_at:
        raise fault("expiresAt", "must be after effectiveAt")
    recurrence = None
    if spec.recurrence is not None:
        recurrence = spec.recurrence.recurrence(effective_at, zone)
        check_interval("recurrence.interval", recurrence.interval, limits)
        start = max(effective_at, entitlement.metered.measure_from)
        count = _count(recurrence.interval, start, min(expires_at or now, now))
        check_steps("recurrence", "recurrences lie between its start and now", count, limits)
    grant = Grant(
        id=grant_id,
        amount=spec.amount,
        effective_at=effective_at,
        created_at=created_at,
        priority=spec.priority,
        expires_at=expires_at,
        min_rollover=spec.min_rollover,
        max_rollover=spec.max_rollover,
        recurrence=recurrence,
    )
    return IssuedGrant(
        grant=grant,
        namespace=entitlement.namespace,
        entitlement_id=entitlement.id,
        expiration=spec.expiration,
        issued_after_reset=False,
        metadata=spec.metadata,
        updated_at=created_at,
    )


def _expiry(expiration: Expiration, effective_at: datetime, zone: ZoneInfo | None) -> datetime:
    interval = parse_duration(expiration.duration)
    expires_at = shift(effective_at, interval, expiration.count, zone)
    if expires_at > LATEST:
        raise fault("expiration", f"must end before {LATEST.year}; leave it out for no end")
    return expires_at


def parse_duration(text: str) -> Interval:
    """The duration of an expiration: HOUR, DAY, WEEK, MONTH, YEAR or an ISO 8601 duration."""
    return parse_interval(_DURATIONS.get(text, text))


def check_interval(where: str, interval: Interval, limits: EntitlementLimits) -> None:
    """Refuse what would recur too often."""
    if interval.mean < limits.min_interval:
        raise fault(where, f"must be at least {limits.min_interval_seconds} seconds")


def check_steps(where: str, what: str, count: float, limits: EntitlementLimits) -> None:
    """Refuse what would make too many changes at once."""
    if count > limits.max_steps:
        raise fault(where, f"more than {limits.max_steps} {what}")


def check_future(
    where: str, allowance: Allowance, now: datetime, at: datetime, limits: EntitlementLimits
) -> None:
    """Refuse to look so far ahead that too much happens until then."""
    if at > now:
        what = "usage periods and recurrences lie between now and then"
        check_steps(where, what, steps(allowance, now, at), limits)


def steps(allowance: Allowance, start: datetime, end: datetime) -> float:
    """About how many usage periods and recurrences lie between two instants."""
    count = _count(allowance.terms.usage_period.interval, start, end)
    for grant in allowance.grants:
        if grant.recurrence:
            begin = max(start, grant.effective_at)
            count += _count(grant.recurrence.interval, begin, min(grant.ends_at or end, end))
    return count


def _count(interval: Interval, start: datetime, end: datetime) -> float:
    return max(end - start, timedelta(0)) / interval.mean
