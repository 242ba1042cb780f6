"""What an event does to a subscription. Pure.

Stripe sends events more than once and in any order. So each is noted, and all notes of a
subscription together, in the order in which their events were made, say where it stands: the same
whatever the order in which they came. Of events of the same second the end of a subscription counts
more than a payment, and a payment more than a failure.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from entitlements.plans.payments.notice import Kind, Notice


class SubscriptionState(StrEnum):
    """Where a subscription is."""

    ACTIVE = "active"
    PAST_DUE = "past_due"
    ENDED = "ended"


_ORDER = [Kind.FAILED, Kind.PAID, Kind.ENDED]


@dataclass(frozen=True, slots=True)
class Note:
    """What counts of an event; `id` is the event's."""

    id: str
    kind: Kind
    at: datetime
    """When the event was made."""
    plan: str | None = None
    """Key of the plan that was paid for."""
    fallback: str | None = None
    invoice: str | None = None
    begins: int | None = None
    """Start of the period that the invoice is for, in seconds since 1970."""
    ends: int | None = None


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
    """When the subject falls back, unless it pays; None when it has fallen back."""


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
    """What an event does, and what is known of the subscription after it."""

    step: Step
    after: Subscription
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Standing:
    """What the notes of a subscription come to."""

    has_ended: bool = False
    plan: str | None = None
    payment: str | None = None
    """Of which note the plan is."""
    fallback: str | None = None
    changed_at: datetime | None = None
    unpaid: tuple[Note, ...] = ()
    """Failures that no payment has made good, the first one first."""


def note_of(notice: Notice, plan: str | None) -> Note:
    """What counts of a notice. `plan` is the plan of its prices or metadata."""
    assert notice.kind is not None
    return Note(
        notice.id,
        notice.kind,
        notice.created_at,
        plan if notice.kind is Kind.PAID else None,
        notice.fallback,
        notice.invoice,
        notice.period_start,
        notice.period_end,
    )


def judge(
    known: Subscription | None,
    notes: Sequence[Note],
    notice: Notice,
    plan: str | None,
    grace: timedelta,
    now: datetime,
) -> Verdict:
    """What a notice with a subject does. `notes` are those of the subscription until now."""
    note = note_of(notice, plan)
    before, after = _stand(notes), _stand([*(one for one in notes if one.id != note.id), note])
    had_fallen = known is not None and _has_fallen(known)
    found = _subscription(notice, after)
    if after.has_ended:
        if before.has_ended:
            return Verdict(Step.NOTHING, found, "the subscription has ended")
        return Verdict(Step.FALL_BACK, found)
    if after.unpaid:
        # Stripe tries several times: the grace began with the first failure.
        until = after.unpaid[0].at + grace
        if until <= now:
            if had_fallen:
                return Verdict(Step.NOTHING, found, "the subject has fallen back already")
            return Verdict(Step.FALL_BACK, found)
        found = replace(found, grace_until=until)
    if after.plan is not None and (
        had_fallen or after.plan != before.plan or after.payment == note.id
    ):
        return Verdict(Step.PAY, found)
    if note.kind is Kind.FAILED and after.unpaid:
        return Verdict(Step.WAIT, found)
    if note.kind is Kind.PAID and after.unpaid:
        reason = "an older invoice was paid, not the one whose payment failed"
        return Verdict(Step.NOTHING, found, reason)
    return Verdict(Step.NOTHING, found, "a newer event of the subscription was there before")


def subscription_id(notice: Notice) -> str:
    """The subscription's id; payments without one count as one subscription of the subject."""
    if notice.subscription is not None:
        return notice.subscription
    return f"subject:{notice.subject}"[:255]


def _stand(notes: Iterable[Note]) -> _Standing:
    found = _Standing()
    for note in sorted(notes, key=lambda one: (one.at, _ORDER.index(one.kind), one.id)):
        if found.has_ended:
            # A final invoice may be paid after the end. It brings no plan back.
            break
        found = replace(found, changed_at=note.at, fallback=note.fallback or found.fallback)
        match note.kind:
            case Kind.ENDED:
                found = replace(found, has_ended=True)
            case Kind.FAILED:
                found = replace(found, unpaid=(*found.unpaid, note))
            case Kind.PAID:
                found = _paid(found, note)
    return found


def _paid(before: _Standing, note: Note) -> _Standing:
    unpaid = tuple(one for one in before.unpaid if not _settles(note, one))
    # The payment of an older invoice says nothing of the plan that is not paid for now.
    is_older = any(_begins(note) < _begins(one) for one in unpaid)
    after = replace(before, unpaid=unpaid)
    if is_older and before.plan is not None:
        return after
    return replace(after, plan=note.plan, payment=note.id)


def _settles(paid: Note, failed: Note) -> bool:
    """Whether a payment makes a failure good: of its invoice or period, or of a later one.

    What is paid for in the middle of the period, as a change of plans, does not.
    """
    if paid.invoice is not None and paid.invoice == failed.invoice:
        return True
    begun = _begins(failed)
    return _begins(paid) == begun or _begins(paid) >= max(begun, failed.ends or 0)


def _begins(note: Note) -> int:
    return note.begins or 0


def _has_fallen(known: Subscription) -> bool:
    return known.state is SubscriptionState.PAST_DUE and known.grace_until is None


def _subscription(notice: Notice, standing: _Standing) -> Subscription:
    assert notice.subject is not None and standing.changed_at is not None
    state = SubscriptionState.PAST_DUE if standing.unpaid else SubscriptionState.ACTIVE
    return Subscription(
        subscription_id(notice),
        notice.subject,
        SubscriptionState.ENDED if standing.has_ended else state,
        standing.changed_at,
        standing.plan,
        standing.fallback,
        standing.unpaid[0].begins if standing.unpaid else None,
    )
