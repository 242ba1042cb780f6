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
    if at > now:
        raise ValidationError(f"cannot reset at {format_instant(at)}: it is in the future")
    later = max((reset.at for reset in allowance.resets if reset.at > at), default=None)
    if later is not None:
        raise ValidationError(
            f"cannot reset at {format_instant(at)}: it is before the reset at "
            f"{format_instant(later)}"
        )
    start = period_at(allowance, now).start
    if at < start:
        raise ValidationError(
            f"cannot reset at {format_instant(at)}: it is before the start of the current "
            f"usage period, {format_instant(start)}"
        )
    if at == allowance.terms.measure_from:
        raise ValidationError(
            f"cannot reset at {format_instant(at)}: that is when measurement starts"
        )
    if any(reset.at == at for reset in allowance.resets):
        raise ValidationError(
            f"cannot reset at {format_instant(at)}: there is a reset at this time already"
        )


def check_void(allowance: Allowance, grant: Grant, at: datetime, now: datetime) -> None:
    """Refuse to void a grant in the future, twice, or in a period that is over."""
    if at > now:
        raise ValidationError(f"cannot void at {format_instant(at)}: it is in the future")
    if grant.voided_at is not None:
        raise ValidationError(
            f"the grant is already voided, since {format_instant(grant.voided_at)}"
        )
    start = period_at(allowance, now).start
    if at < start:
        raise ValidationError(
            f"cannot void at {format_instant(at)}: it is before the start of the current "
            f"usage period, {format_instant(start)}"
        )
