"""Answers as JSON: pure functions, numbers with every digit."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from entitlements.access import Access
from entitlements.balance import History, Segment, Window
from entitlements.model import Entitlement, Feature, IssuedGrant
from entitlements.paging import Page
from entitlements.services.entitlements import EntitlementState
from meterline.kernel.instants import format_instant
from meterline.kernel.periods import Period, Recurrence, format_interval, interval_name
from meterline.kernel.quantity import format_number

Json = dict[str, Any]


def access_json(access: Access) -> Json:
    """The value of an entitlement."""
    answer: Json = {"hasAccess": access.has_access}
    figures = access.metered
    if figures is not None:
        answer |= {
            "balance": _number(figures.balance),
            "usage": _number(figures.usage),
            "overage": _number(figures.overage),
            "totalAvailableGrantAmount": _number(figures.total_available_grant_amount),
            "held": _number(figures.held),
            "available": _number(figures.available),
            "asOf": format_instant(figures.as_of),
            "grantBalances": _numbers(figures.grant_balances),
        }
    if access.config is not None:
        answer["config"] = access.config
    return answer


def feature_json(feature: Feature) -> Json:
    """A feature."""
    answer: Json = {
        "id": feature.id,
        "key": feature.key,
        "name": feature.name,
        "metadata": feature.metadata,
        "createdAt": format_instant(feature.created_at),
        "updatedAt": format_instant(feature.updated_at),
    }
    if feature.meter_slug is not None:
        answer["meterSlug"] = feature.meter_slug
    if feature.filters:
        simple = {key: texts[0] for key, texts in feature.filters.items() if len(texts) == 1}
        if len(simple) == len(feature.filters):
            answer["meterGroupByFilters"] = simple
        answer["advancedMeterGroupByFilters"] = {
            key: {"$eq": texts[0]} if len(texts) == 1 else {"$in": texts}
            for key, texts in feature.filters.items()
        }
    if feature.archived_at is not None:
        answer["archivedAt"] = format_instant(feature.archived_at)
    return answer


def entitlement_json(state: EntitlementState) -> Json:
    """An entitlement."""
    one = state.entitlement
    answer: Json = {
        "id": one.id,
        "type": one.type.value,
        "subjectKey": one.subject,
        "featureKey": one.feature_key,
        "featureId": one.feature_id,
        "metadata": one.metadata,
        "createdAt": format_instant(one.created_at),
        "updatedAt": format_instant(one.updated_at),
        "activeFrom": format_instant(one.created_at),
    }
    if one.ended_at is not None:
        answer["activeTo"] = answer["deletedAt"] = format_instant(one.ended_at)
    if one.usage_period is not None and state.anchor is not None and state.period is not None:
        answer["usagePeriod"] = _recurrence(one.usage_period, state.anchor)
        answer["currentUsagePeriod"] = _period(state.period)
    if one.config is not None:
        answer["config"] = one.config
    return answer | _metered(one, state.period)


def _metered(one: Entitlement, period: Period | None) -> Json:
    rules = one.metered
    if rules is None or period is None:
        return {}
    answer: Json = {
        "isSoftLimit": rules.is_soft_limit,
        "isUnlimited": False,
        "preserveOverageAtReset": rules.preserve_overage_at_reset,
        "measureUsageFrom": format_instant(rules.measure_from),
        "lastReset": format_instant(period.start),
    }
    if rules.issue_after_reset is not None:
        answer["issueAfterReset"] = _number(rules.issue_after_reset)
        answer["issueAfterResetPriority"] = rules.issue_after_reset_priority
    return answer


def grant_json(issued: IssuedGrant, now: datetime) -> Json:
    """A grant, as it is now."""
    grant = issued.grant
    answer: Json = {
        "id": grant.id,
        "entitlementId": issued.entitlement_id,
        "amount": _number(grant.amount),
        "priority": grant.priority,
        "effectiveAt": format_instant(grant.effective_at),
        "minRolloverAmount": _number(grant.min_rollover),
        "maxRolloverAmount": _number(grant.max_rollover),
        "metadata": issued.metadata,
        "createdAt": format_instant(grant.created_at),
        "updatedAt": format_instant(issued.updated_at),
    }
    if issued.expiration is not None:
        duration, count = issued.expiration.duration, issued.expiration.count
        answer["expiration"] = {"duration": duration, "count": count}
    if grant.expires_at is not None:
        answer["expiresAt"] = format_instant(grant.expires_at)
    if grant.voided_at is not None:
        answer["voidedAt"] = format_instant(grant.voided_at)
    if grant.recurrence is not None:
        answer["recurrence"] = _recurrence(grant.recurrence, grant.recurrence.anchor)
        upcoming = grant.recurrence.period(max(now, grant.effective_at)).end
        if grant.ends_at is None or upcoming < grant.ends_at:
            answer["nextRecurrence"] = format_instant(upcoming)
    if issued.issued_after_reset:
        answer["annotations"] = {"issueAfterReset": True}
    return answer


def history_json(told: History) -> Json:
    """A history, in windows and in segments."""
    return {
        "windowedHistory": [_window(one) for one in told.windows],
        "burndownHistory": [_segment(one) for one in told.segments],
    }


def listing_json(items: Sequence[Json], total: int, page: Page) -> Json | Sequence[Json]:
    """A plain list, or a page of it when the caller named a page."""
    if page.number is None:
        return items
    return {"items": items, "totalCount": total, "page": page.number, "pageSize": page.limit}


def _window(window: Window) -> Json:
    return {
        "period": _period(window.period),
        "usage": _number(window.usage),
        "balanceAtStart": _number(window.balance_at_start),
        "overageAtStart": _number(window.overage_at_start),
    }


def _segment(segment: Segment) -> Json:
    answer: Json = {
        "period": _period(segment.period),
        "usage": _number(segment.usage),
        "overage": _number(segment.overage),
        "overageAtStart": _number(segment.overage_at_start),
        "balanceAtStart": _number(segment.balance_at_start),
        "grantBalancesAtStart": _numbers(segment.grant_balances_at_start),
        "balanceAtEnd": _number(segment.balance_at_end),
        "grantBalancesAtEnd": _numbers(segment.grant_balances_at_end),
        "grantUsages": [
            {"grantId": grant_id, "usage": _number(usage)}
            for grant_id, usage in segment.grant_usages.items()
        ],
    }
    if segment.ends_in_reset:
        answer["endsInReset"] = True
    if segment.is_rollover:
        answer["isRollover"] = True
    return answer


def _recurrence(recurrence: Recurrence, anchor: datetime) -> Json:
    iso = format_interval(recurrence.interval)
    answer: Json = {
        "interval": interval_name(recurrence.interval) or iso,
        "intervalISO": iso,
        "anchor": format_instant(anchor),
    }
    if recurrence.zone is not None:
        answer["timeZone"] = recurrence.zone.key
    return answer


def _period(period: Period) -> Json:
    return {"from": format_instant(period.start), "to": format_instant(period.end)}


def _number(value: Decimal) -> msgspec.Raw:
    return msgspec.Raw(format_number(value).encode())


def _numbers(values: Mapping[str, Decimal]) -> Json:
    return {key: _number(value) for key, value in values.items()}
