"""What may be done to an entitlement, and why not."""

from datetime import datetime

from entitlements.balance.model import Allowance, Grant
from entitlements.balance.timeline import period_at
from meterline.kernel.errors import ValidationError
from meterline.kernel.instants import format_instant


def check_reset(allowance: Allowance, at: datetime, now: datetime) -> None:
    """Refuse a reset that the past or the future forbids.

    The period that `now` is in may be reset, from its start on. A period that is over keeps its
    end: its rollover has been lived with.
    """
    _check(at, now, allowance, "reset")
    by_hand = [reset.at for reset in allowance.resets]
    if by_hand and at < max(by_hand):
        last = format_instant(max(by_hand))
        raise ValidationError(
            f"cannot reset at {format_instant(at)}: it is before last reset {last}"
        )
    if at == allowance.terms.measure_from:
        raise ValidationError(
            f"cannot reset at {format_instant(at)}: that is when measurement starts"
        )
    if at in by_hand:
        raise ValidationError(
            f"cannot reset at {format_instant(at)}: there is a reset at this time already"
        )


def check_void(allowance: Allowance, grant: Grant, at: datetime, now: datetime) -> None:
    """Refuse to void a grant in the future, twice, or in a period that is over."""
    if grant.voided_at is not None:
        since = format_instant(grant.voided_at)
        raise ValidationError(f"the grant is already voided, since {since}")
    _check(at, now, allowance, "void")


def _check(at: datetime, now: datetime, allowance: Allowance, action: str) -> None:
    """Refuse what is after `now` or before the period that `now` is in."""
    start = period_at(allowance, now).start
    if at > now:
        raise ValidationError(f"cannot {action} at {format_instant(at)}: it is in the future")
    if at < start:
        raise ValidationError(
            f"cannot {action} at {format_instant(at)}: it is before current usage period start "
            f"{format_instant(start)}"
        )
