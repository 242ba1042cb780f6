"""Which rules fire at a value. Pure: no clock, no store.

A threshold is a level, not an edge: it fires as soon as a value is seen at or past it and it has
not fired in this usage period. So nothing depends on how often values are looked at, and a look
that was lost with a crash is made up for by the next one.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

from entitlements.notifications.model import (
    EntitlementValue,
    EventType,
    ExpiringGrant,
    NewEvent,
    Rule,
    Threshold,
    ThresholdType,
)
from meterline.kernel.instants import format_instant
from meterline.kernel.periods import NEVER, Interval, shift
from meterline.kernel.quantity import format_number

_FORGET_AFTER = timedelta(days=1)
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of an entitlement before."""

    period_start: datetime
    balance: Decimal


def applies(rule: Rule, value: EntitlementValue) -> bool:
    """Whether the rule watches this entitlement."""
    features = rule.spec.features
    return (
        not rule.spec.disabled
        and rule.namespace == value.namespace
        and (not features or any(one.id == value.feature.id for one in features))
    )


def fired(
    rules: Iterable[Rule], value: EntitlementValue, before: Seen | None
) -> Iterator[NewEvent]:
    """The events that a value gives rise to. Those whose `key` is known already are to be dropped.

    `before` is None when the entitlement is seen for the first time; its period is then no reset.
    """
    for rule in rules:
        if not applies(rule, value):
            continue
        match rule.spec.type:
            case EventType.BALANCE_THRESHOLD:
                for threshold in rule.spec.thresholds:
                    if is_reached(threshold, value, before):
                        yield _event(rule, value, _key(threshold), threshold=shown(threshold))
            case EventType.EXHAUSTED:
                if is_exhausted(value, before):
                    yield _event(rule, value, "exhausted")
            case EventType.RESET:
                if before is not None and value.period.start > before.period_start:
                    yield _event(rule, value, "reset")
            case EventType.GRANTS_EXPIRING:
                for grant in value.grants:
                    if tells_from(rule, grant) <= value.at < grant.expires_at and grant.balance > 0:
                        yield _expiring(rule, value, grant)
            case EventType.EVENTS_REJECTED:
                pass


def is_reached(threshold: Threshold, value: EntitlementValue, before: Seen | None) -> bool:
    """Whether usage has risen to the threshold, or the balance has fallen to it.

    Where nothing was granted there is no percentage, and no balance that could have fallen.
    """
    granted = value.total_available_grant_amount
    match threshold.type:
        case ThresholdType.USAGE_VALUE | ThresholdType.NUMBER:
            return value.usage > 0 and value.usage >= threshold.value
        case ThresholdType.USAGE_PERCENTAGE | ThresholdType.PERCENT:
            with localcontext(prec=100):
                share = granted * threshold.value
                return granted > 0 and value.usage > 0 and value.usage * 100 >= share
        case ThresholdType.BALANCE_VALUE:
            fell = before is not None and before.balance > threshold.value
            return value.balance <= threshold.value and (granted > 0 or fell)


def is_exhausted(value: EntitlementValue, before: Seen | None) -> bool:
    """Whether nothing is left of something that was there."""
    had = value.total_available_grant_amount > 0 or value.usage > 0
    return value.balance <= 0 and (had or (before is not None and before.balance > 0))


def tells_from(rule: Rule, grant: ExpiringGrant) -> datetime:
    """From when on the rule tells that the grant will expire."""
    lead = rule.spec.lead_time or Interval(days=7)
    return max(grant.effective_at, shift(grant.expires_at, lead, -1))


def next_look(rules: Iterable[Rule], value: EntitlementValue) -> datetime | None:
    """When a grant will have to be told of for which it is too early at `value`."""
    times = [
        tells_from(rule, grant)
        for rule in rules
        if rule.spec.type is EventType.GRANTS_EXPIRING and applies(rule, value)
        for grant in value.grants
    ]
    return min((at for at in times if at > value.at), default=None)


def shown(threshold: Threshold) -> dict[str, Any]:
    """A threshold as payloads and the API show it."""
    return {"type": threshold.type.value, "value": threshold.value}


def _key(threshold: Threshold) -> str:
    return f"{threshold.type.value} {format_number(threshold.value)}"


def _event(rule: Rule, value: EntitlementValue, what: str, **data: Any) -> NewEvent:
    period = value.period
    return NewEvent(
        type=rule.spec.type,
        rule_id=rule.id,
        at=value.at,
        data={**value_data(value), **data},
        subject=value.subject,
        feature=value.feature,
        key=f"{rule.id} {value.entitlement_id} {format_instant(period.start)} {what}",
        remember_until=_later(period.end),
    )


def _expiring(rule: Rule, value: EntitlementValue, grant: ExpiringGrant) -> NewEvent:
    expires_at = format_instant(grant.expires_at)
    return NewEvent(
        type=rule.spec.type,
        rule_id=rule.id,
        at=value.at,
        data={
            **value_data(value),
            "grant": {"id": grant.id, "balance": grant.balance, "expiresAt": expires_at},
        },
        subject=value.subject,
        feature=value.feature,
        key=f"{rule.id} {grant.id} {expires_at} expiring",
        remember_until=_later(grant.expires_at),
    )


def _later(instant: datetime) -> datetime:
    return NEVER if instant > NEVER - _FORGET_AFTER else instant + _FORGET_AFTER


def value_data(value: EntitlementValue) -> Mapping[str, Any]:
    """What every payload about an entitlement shows."""
    period = {"from": format_instant(value.period.start)}
    if value.period.end < NEVER:
        period["to"] = format_instant(value.period.end)
    return {
        "entitlement": {
            "id": value.entitlement_id,
            "type": "metered",
            "subjectKey": value.subject,
            "featureId": value.feature.id,
            "featureKey": value.feature.key,
            **value.documents.get("entitlement", {}),
            "currentUsagePeriod": period,
        },
        "feature": {
            "id": value.feature.id,
            "key": value.feature.key,
            **value.documents.get("feature", {}),
        },
        "subject": {"key": value.subject, **value.documents.get("subject", {})},
        "value": {
            "hasAccess": value.has_access,
            "balance": value.balance,
            "usage": value.usage,
            "overage": value.overage,
            "totalAvailableGrantAmount": value.total_available_grant_amount,
        },
    }
