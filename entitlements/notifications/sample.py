"""What a rule's test sends: an event as the rule would make it, about an entitlement of nobody."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from entitlements.notifications.firing import shown, value_data
from entitlements.notifications.model import (
    EntitlementValue,
    EventType,
    FeatureRef,
    NewEvent,
    Rule,
)
from meterline.kernel.instants import format_instant
from meterline.kernel.periods import Period

TEST_ANNOTATION = "notification.rule.test"
_ID = "01J00000000000000000000000"


def sample_event(rule: Rule, now: datetime) -> NewEvent:
    """The event of a test."""
    return NewEvent(
        type=rule.spec.type,
        rule_id=rule.id,
        at=now,
        data=_data(rule, now),
        annotations={TEST_ANNOTATION: True},
    )


def _data(rule: Rule, now: datetime) -> Mapping[str, Any]:
    hour = timedelta(hours=1)
    if rule.spec.type is EventType.EVENTS_REJECTED:
        return {
            "from": format_instant(now - hour),
            "to": format_instant(now),
            "count": 1,
            "reasons": [{"reason": "value cannot be null", "count": 1}],
        }
    feature = next(iter(rule.spec.features), FeatureRef(_ID, "example_feature"))
    data = value_data(
        EntitlementValue(
            namespace=rule.namespace,
            entitlement_id=_ID,
            subject="example-subject",
            feature=feature,
            at=now,
            has_access=True,
            balance=Decimal(1_000),
            usage=Decimal(9_000),
            overage=Decimal(0),
            total_available_grant_amount=Decimal(10_000),
            period=Period(now - hour, now + hour),
        )
    )
    match rule.spec.type:
        case EventType.BALANCE_THRESHOLD:
            return {**data, "threshold": shown(rule.spec.thresholds[0])}
        case EventType.GRANTS_EXPIRING:
            expires_at = format_instant(now + 24 * hour)
            return {
                **data,
                "grant": {"id": _ID, "balance": Decimal(1_000), "expiresAt": expires_at},
            }
    return data
