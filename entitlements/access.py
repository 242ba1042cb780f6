"""Access: may this subject use this feature now? Pure rules over terms and a balance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from entitlements.balance import Balance
from entitlements.balance.exact import ROOM, ZERO


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When an entitlement is in force: from `start` until it is deleted or overridden."""

    start: datetime
    end: datetime | None = None

    def __contains__(self, t: datetime) -> bool:
        return self.start <= t and (self.end is None or t < self.end)


@dataclass(frozen=True, slots=True)
class Access:
    """The answer. An entitlement that is not in force gives `Access(False)`."""

    has_access: bool
    config: str | None = None
    """JSON text, of a static entitlement."""
    metered: "MeteredAccess | None" = None


@dataclass(frozen=True, slots=True)
class MeteredAccess:
    """The figures behind the answer of a metered entitlement."""

    balance: Decimal
    usage: Decimal
    overage: Decimal
    total_available_grant_amount: Decimal
    held: Decimal
    """Set aside: open holds, and confirmed ones that are not yet part of the usage."""
    available: Decimal
    """The balance without what is held; below zero when overdrawn by that."""
    as_of: datetime
    grant_balances: Mapping[str, Decimal] = field(default_factory=dict)


def metered_access(
    balance: Balance,
    lifetime: Lifetime,
    *,
    is_soft_limit: bool,
    held: Decimal = ZERO,
    pending: Decimal = ZERO,
) -> Access:
    """Access while anything is left, or always with a soft limit.

    A hold is a promise to use, not use: it lowers what is available for other holds, but it does
    not take access away. What is `pending` was used, and becomes usage in a moment: it does.
    """
    held = ROOM.add(held, pending)
    if balance.at not in lifetime:
        return Access(False)
    figures = MeteredAccess(
        balance=balance.balance,
        usage=balance.usage,
        overage=balance.overage,
        total_available_grant_amount=balance.total_available_grant_amount,
        held=held,
        available=ROOM.subtract(balance.balance, held),
        as_of=balance.at,
        grant_balances=balance.grant_balances,
    )
    return Access(is_soft_limit or balance.balance > pending, metered=figures)


def static_access(at: datetime, lifetime: Lifetime, config: str) -> Access:
    """Access, and the stored configuration, while the entitlement is in force."""
    return Access(True, config=config) if at in lifetime else Access(False)


def boolean_access(at: datetime, lifetime: Lifetime) -> Access:
    """Access while the entitlement is in force."""
    return Access(at in lifetime)
