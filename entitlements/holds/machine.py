"""The states of a hold, as TigerBeetle's two-phase transfers have them. Pure.

What is asked twice is answered twice: a retry with the same content gives the hold that the first
one gave, other content is a conflict that names the field. Time is microseconds since 1970.
"""

from decimal import Decimal
from typing import NoReturn

from msgspec.structs import replace

from entitlements.balance.exact import ROOM, ZERO
from entitlements.holds.model import Hold, OnExcess, Opening, Room, Standing, State
from meterline.kernel.errors import ConflictError, UsageLimitError
from meterline.kernel.quantity import format_number

_MICROS = 1_000_000
_CLOSED = {
    State.CONFIRMED: "was confirmed",
    State.RELEASED: "was released",
    State.EXPIRED: "has expired",
    State.FAILED: "was refused for want of balance, and stays so: use a new id",
}


def opened(opening: Opening, entitlement_id: str, room: Room, standing: Standing, now: int) -> Hold:
    """The new hold: open, or refused for good when the room does not suffice."""
    current = ROOM.add(ROOM.add(room.used, standing.held), standing.pending)
    hold = Hold(opening, entitlement_id, State.OPEN, now, _expiry(opening, now))
    available = ROOM.subtract(room.limit, current)
    if room.unlimited or opening.amount <= available:
        return replace(hold, available=ROOM.subtract(available, opening.amount))
    return replace(
        hold,
        state=State.FAILED,
        expires_at=None,
        closed_at=now,
        limit=room.limit,
        current=current,
        available=available,
    )


def opened_again(hold: Hold, opening: Opening) -> Hold:
    """The hold that is there, when it is what is asked for; else the conflict."""
    first, again = hold.opening, opening
    pairs = (
        ("subject", first.place.subject, again.place.subject),
        ("featureKey", first.place.feature_key, again.place.feature_key),
        ("kind", first.face, again.face),
        ("amount", first.amount, again.amount),
        ("ttlSeconds", first.ttl_seconds, again.ttl_seconds),
        ("onExcess", first.on_excess, again.on_excess),
        ("model", first.model, again.model),
        ("metadata", first.metadata, again.metadata),
        ("details", first.details, again.details),
    )
    for field, one, other in pairs:
        if one != other:
            raise _conflict(hold, f"the id belongs to a hold with another {field}", field)
    return hold


def as_of(hold: Hold, now: int) -> Hold:
    """The hold at an instant: at its expiry, and not before, an open one is expired."""
    if hold.state is State.OPEN and hold.expires_at is not None and now >= hold.expires_at:
        return replace(hold, state=State.EXPIRED, closed_at=hold.expires_at)
    return hold


def confirmed(hold: Hold, amount: Decimal | None, now: int) -> Hold:
    """The hold when `amount` of it is used, all of it when None; the rest is given back."""
    amount = hold.amount if amount is None else amount
    hold = as_of(hold, now)
    if hold.state is State.CONFIRMED:
        if hold.confirmed != amount:
            other = format_number(hold.confirmed or ZERO)
            raise _conflict(hold, f"the hold was confirmed with another amount: {other}", "amount")
        return hold
    if hold.state is not State.OPEN:
        _refuse(hold)
    if amount > hold.amount and hold.opening.on_excess is OnExcess.DENY:
        held = format_number(hold.amount)
        raise _conflict(hold, f"the hold is of {held}, and its policy denies more", "amount")
    return replace(hold, state=State.CONFIRMED, closed_at=now, confirmed=amount)


def released(hold: Hold, now: int) -> Hold:
    """The hold when all of it is given back."""
    hold = as_of(hold, now)
    if hold.state is State.RELEASED:
        return hold
    if hold.state is not State.OPEN:
        _refuse(hold)
    return replace(hold, state=State.RELEASED, closed_at=now)


def refusal(hold: Hold) -> UsageLimitError:
    """The error of a hold that was refused; the same every time."""
    limit, current = hold.limit or ZERO, hold.current or ZERO
    return UsageLimitError(
        f"{format_number(hold.amount)} of {hold.opening.place.feature_key} are more than what is"
        f" available: {format_number(ROOM.subtract(limit, current))}",
        extensions={
            "limitType": hold.opening.place.feature_key,
            "limit": _plain(limit),
            "current": _plain(current),
            "requested": _plain(hold.amount),
            "holdId": hold.id,
        },
    )


def _plain(amount: Decimal) -> Decimal:
    return Decimal(format_number(amount))


def _expiry(opening: Opening, now: int) -> int | None:
    if not opening.ttl_seconds:
        return None
    return now + int(ROOM.multiply(opening.ttl_seconds, Decimal(_MICROS)))


def _refuse(hold: Hold) -> NoReturn:
    raise _conflict(hold, f"the hold {_CLOSED[hold.state]}", "state")


def _conflict(hold: Hold, detail: str, field: str) -> ConflictError:
    return ConflictError(
        detail, extensions={"field": field, "holdId": hold.id, "state": hold.state.value}
    )
