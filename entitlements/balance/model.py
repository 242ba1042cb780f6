"""What a balance is computed from, apart from usage. Nothing here changes once it is made."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from entitlements.balance.exact import ZERO
from entitlements.balance.metering import Metering
from meterline.kernel.periods import Recurrence


@dataclass(frozen=True, slots=True)
class Grant:
    """An amount that a subject may use from `effective_at` until it expires or is voided."""

    id: str
    amount: Decimal
    effective_at: datetime
    created_at: datetime
    priority: int = 1
    expires_at: datetime | None = None
    voided_at: datetime | None = None
    min_rollover: Decimal = ZERO
    max_rollover: Decimal = ZERO
    recurrence: Recurrence | None = None

    @property
    def ends_at(self) -> datetime | None:
        """The first instant at which it is not active any more; None when it lasts for ever."""
        return min((t for t in (self.expires_at, self.voided_at) if t is not None), default=None)

    def active_at(self, t: datetime) -> bool:
        """Whether it can be used at `t`."""
        ends_at = self.ends_at
        return self.effective_at <= t and (ends_at is None or t < ends_at)


@dataclass(frozen=True, slots=True)
class Reset:
    """A reset by hand. Those at the borders of usage periods are computed, not stored."""

    at: datetime
    retain_anchor: bool = False
    preserve_overage: bool | None = None
    """None: as the entitlement says."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a metered entitlement says."""

    measure_from: datetime
    usage_period: Recurrence
    metering: Metering = Metering.ADDITIVE
    preserve_overage_at_reset: bool = False
    is_soft_limit: bool = False


@dataclass(frozen=True, slots=True)
class Allowance:
    """A metered entitlement with its grants and its resets by hand, each in any order."""

    terms: Terms
    grants: tuple[Grant, ...] = ()
    resets: tuple[Reset, ...] = ()


def burn_order(grant: Grant) -> tuple[int, bool, datetime, datetime, str]:
    """The key of the order in which grants burn.

    Lower priority number, then earlier expiry (none last), then earlier creation, then id.
    """
    never = grant.expires_at is None
    return (
        grant.priority,
        never,
        grant.expires_at or grant.created_at,
        grant.created_at,
        grant.id,
    )


def issued_after_reset(
    terms: Terms, amount: Decimal, *, grant_id: str, created_at: datetime, priority: int = 1
) -> Grant:
    """The grant of an entitlement with `issueAfterReset`: full at the start and after each reset.

    That is a grant from the start of measurement which never expires and rolls over as its
    whole amount, whatever was used of it.
    """
    return Grant(
        id=grant_id,
        amount=amount,
        effective_at=terms.measure_from,
        created_at=created_at,
        priority=priority,
        min_rollover=amount,
        max_rollover=amount,
    )
