"""What an event does to a subscription. Pure.

Stripe sends events more than once and in any order. What counts is when each was made: one that is
older than the last one that counted changes nothing. Of events of the same second the end of a
subscription counts more than a payment, and a payment more than a failure.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from entitlements.plans.payments.notice import Kind, Notice


class SubscriptionState(StrEnum):
    """Where a subscription is."""

    ACTIVE = "active"
    PAST_DUE = "past_due"
    ENDED = "ended"


_STATES = {
    Kind.PAID: SubscriptionState.ACTIVE,
    Kind.FAILED: SubscriptionState.PAST_DUE,
    Kind.ENDED: SubscriptionState.ENDED,
}
_ORDER = [SubscriptionState.PAST_DUE, SubscriptionState.ACTIVE, SubscriptionState.ENDED]


@dataclass(frozen=True, slots=True)
class Subscription:
    """What is known of a subscription."""

    id: str
    subject: str
    state: SubscriptionState
    changed_at: datetime
    """When the last event that counted was made."""
    plan: str | None
    """Key of the plan that is paid for."""
    fallback: str | None
    """Key of the plan after it, when the subscription names one."""
    failed_period: int | None = None
    """Start of the period whose payment failed, in seconds since 1970."""
    grace_until: datetime | None = None
    """When the subject falls back, unless it pays."""


class Step(StrEnum):
    """What follows from an event."""

    PAY = "pay"
    """The subject gets the plan."""
    WAIT = "wait"
    """The subject falls back when the grace is over."""
    FALL_BACK = "fall_back"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an event does; `after` is None when it changes nothing."""

    step: Step
    after: Subscription | None
    reason: str | None = None


def judge(
    known: Subscription | None, notice: Notice, plan: str | None, grace: timedelta, now: datetime
) -> Verdict:
    """What a notice with a subject does. `plan` is the plan of its prices or metadata."""
    assert notice.kind is not None and notice.subject is not None
    state = _STATES[notice.kind]
    if known is not None and _is_older(notice, state, known):
        return Verdict(Step.NOTHING, None, "a newer event of the subscription was there before")
    after = Subscription(
        subscription_id(notice),
        notice.subject,
        state,
        notice.created_at,
        plan or (known.plan if known else None),
        notice.fallback or (known.fallback if known else None),
    )
    match notice.kind:
        case Kind.PAID:
            failed = known.failed_period if known else None
            if failed is not None and (notice.period_start or 0) < failed:
                reason = "an older invoice was paid, not the one whose payment failed"
                return Verdict(Step.NOTHING, None, reason)
            return Verdict(Step.PAY, after)
        case Kind.ENDED:
            return Verdict(Step.FALL_BACK, after)
        case Kind.FAILED:
            return _failed(known, replace(after, failed_period=notice.period_start), grace, now)


def _failed(
    known: Subscription | None, after: Subscription, grace: timedelta, now: datetime
) -> Verdict:
    until = after.changed_at + grace
    if known is not None and known.state is SubscriptionState.PAST_DUE:
        if known.grace_until is None:
            return Verdict(Step.NOTHING, after, "the subject has fallen back already")
        # Stripe tries several times: the grace began with the first failure.
        until = min(until, known.grace_until)
    if until <= now:
        return Verdict(Step.FALL_BACK, after)
    return Verdict(Step.WAIT, replace(after, grace_until=until))


def subscription_id(notice: Notice) -> str:
    """The subscription's id; payments without one count as one subscription of the subject."""
    if notice.subscription is not None:
        return notice.subscription
    return f"subject:{notice.subject}"[:255]


def _is_older(notice: Notice, state: SubscriptionState, known: Subscription) -> bool:
    if notice.created_at != known.changed_at:
        return notice.created_at < known.changed_at
    return _ORDER.index(state) < _ORDER.index(known.state)
