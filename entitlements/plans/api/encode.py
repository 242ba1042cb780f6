"""Plans and decisions as JSON. Pure."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from entitlements.balance.exact import ZERO
from entitlements.plans.model import (
    CreditAllocation,
    Decision,
    HistoryEntry,
    Limits,
    LimitState,
    Member,
    Overrides,
    Plan,
    PlanFeature,
    Refusal,
)
from meterline.kernel.instants import format_instant
from meterline.kernel.periods import Interval, format_interval, interval_name
from meterline.kernel.quantity import format_number

Json = dict[str, Any]

WIRE_NAMES: Mapping[str, str] = {
    "monthly_tokens": "monthlyTokenLimit",
    "monthly_cost_usd": "monthlyCostLimitUsd",
    "requests_per_minute": "requestsPerMinute",
    "requests_per_hour": "requestsPerHour",
    "requests_per_day": "requestsPerDay",
    "tokens_per_minute": "tokensPerMinute",
}
"""Of limits, by their names in `Limits`."""


def limits_json(limits: Limits) -> Json:
    """The limits that there are."""
    found = {wire: getattr(limits, name) for name, wire in WIRE_NAMES.items()}
    return {wire: number(value) for wire, value in found.items() if value is not None}


def overrides_json(overrides: Overrides) -> Json:
    """Overridden limits; null is none."""
    return {
        WIRE_NAMES[name]: None if value is None else number(value)
        for name, value in overrides.items()
    }


def plan_json(plan: Plan) -> Json:
    """A plan."""
    spec = plan.spec
    answer: Json = {"id": plan.id, "number": plan.number, "key": spec.key, "name": spec.name}
    if spec.description is not None:
        answer["description"] = spec.description
    answer |= limits_json(spec.limits)
    if spec.credits is not None:
        answer["creditAllocation"] = _credits(spec.credits)
    answer["features"] = [_feature(one) for one in spec.features]
    answer["stripePriceIds"] = list(spec.stripe_price_ids)
    if spec.credits_per_payment is not None:
        answer["creditsPerPayment"] = number(spec.credits_per_payment)
    return answer | {
        "metadata": spec.metadata,
        "version": plan.version,
        "createdAt": format_instant(plan.created_at),
        "updatedAt": format_instant(plan.updated_at),
    }


def member_json(member: Member) -> Json:
    """A subject's plan, and what holds for it."""
    answer: Json = {"subject": member.subject, "banned": member.ban is not None}
    if member.plan is not None:
        answer["plan"] = plan_json(member.plan)
    if member.assigned_at is not None:
        answer["assignedAt"] = format_instant(member.assigned_at)
    if member.ban is not None:
        answer["ban"] = {"since": format_instant(member.ban.at), "reason": member.ban.reason}
    return answer | {
        "overrides": overrides_json(member.overrides),
        "limits": limits_json(member.limits),
    }


def history_json(entry: HistoryEntry) -> Json:
    """Something that happened."""
    answer: Json = {
        "id": entry.id,
        "time": format_instant(entry.at),
        "type": entry.kind.value,
        "source": entry.source,
    }
    if entry.plan is not None:
        answer["plan"] = entry.plan
    if entry.reason:
        answer["reason"] = entry.reason
    return answer | ({"data": entry.data} if entry.data else {})


def decision_json(decision: Decision) -> Json:
    """A request that is allowed."""
    answer: Json = {
        "allowed": True,
        "subject": decision.subject,
        "checkId": decision.check_id,
        "limits": [_state(one) for one in decision.limits],
    }
    if decision.plan is not None:
        answer["plan"] = decision.plan
    if decision.holds:
        answer["holds"] = [
            {"id": one.id, "featureKey": one.feature, "amount": number(one.amount)}
            for one in decision.holds
        ]
    return answer


def refusal_json(refusal: Refusal) -> Json:
    """What a refusal says beside the words of a problem."""
    answer: Json = {"allowed": False, "limitType": refusal.limit_type}
    if refusal.limit is not None:
        answer["limit"] = number(refusal.limit)
    if refusal.current is not None:
        answer["current"] = number(refusal.current)
    if refusal.retry_after_seconds is not None:
        answer["retryAfter"] = refusal.retry_after_seconds
    if refusal.window_seconds is not None:
        answer["windowSeconds"] = refusal.window_seconds
    return answer


def rate_headers(states: Sequence[LimitState]) -> list[tuple[bytes, bytes]]:
    """`RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers)."""
    rates = [one for one in states if one.window_seconds is not None]
    if not rates:
        return []
    policy = ", ".join(f'"{one.name}";q={one.limit:f};w={one.window_seconds}' for one in rates)
    now = ", ".join(f'"{one.name}";r={one.remaining:f};t={one.resets_in_seconds}' for one in rates)
    return [(b"ratelimit-policy", policy.encode()), (b"ratelimit", now.encode())]


def number(value: Decimal | int) -> msgspec.Raw:
    """A number with every digit."""
    if isinstance(value, int):
        return msgspec.Raw(str(value).encode())
    return msgspec.Raw(format_number(value).encode())


def _state(state: LimitState) -> Json:
    return {
        "limitType": state.name,
        "limit": number(state.limit),
        "current": number(state.current),
        "remaining": number(state.remaining),
        "resetsInSeconds": state.resets_in_seconds,
    }


def _credits(one: CreditAllocation) -> Json:
    answer: Json = {"interval": _interval(one.interval), "amount": number(one.amount)}
    if one.max_rollover != ZERO:
        answer["maxRollover"] = number(one.max_rollover)
    return answer | {"priority": one.priority}


def _feature(one: PlanFeature) -> Json:
    answer: Json = {"featureKey": one.key, "type": one.type.value}
    if one.config is not None:
        answer["config"] = one.config
    if one.interval is not None:
        answer |= {"interval": _interval(one.interval), "isSoftLimit": one.is_soft_limit}
    if one.amount is not None:
        answer["amount"] = number(one.amount)
    return answer


def _interval(interval: Interval) -> str:
    return interval_name(interval) or format_interval(interval)
