"""What the engine answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from entitlements.balance.exact import total
from entitlements.balance.snapshots import Snapshot
from meterline.kernel.periods import Period

Amounts = list[Decimal]
"""An amount for each grant, in burn order; without meaning for those that are not active."""


class Level(NamedTuple):
    """Where things stand at an instant, inside the engine."""

    usage: Decimal
    balances: Amounts
    owed: Decimal


@dataclass(frozen=True, slots=True)
class Balance:
    """What may still be used at an instant, and what has been."""

    at: datetime
    period_start: datetime
    balance: Decimal
    usage: Decimal
    """Since the start of the period."""
    overage: Decimal
    """Usage that no grant has paid."""
    total_available_grant_amount: Decimal
    """What grants have paid in the period, and what is left of them."""
    grant_balances: Mapping[str, Decimal]
    """Of the active grants, by id, in burn order."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of history in which nothing but usage changed balances.

    For each segment: `usage + overage_at_start` = what grants paid + `overage` (as long as
    corrections do not take back more than was used).
    """

    period: Period
    usage: Decimal
    overage_at_start: Decimal
    overage: Decimal
    grant_balances_at_start: Mapping[str, Decimal]
    grant_balances_at_end: Mapping[str, Decimal]
    grant_usages: Mapping[str, Decimal]
    """What each grant paid, in burn order, without those that paid nothing."""
    ends_in_reset: bool = False
    is_rollover: bool = False
    """The instant of a reset: balances after rolling over, and overage that they pay at once."""

    @property
    def balance_at_start(self) -> Decimal:
        return total(self.grant_balances_at_start.values())

    @property
    def balance_at_end(self) -> Decimal:
        return total(self.grant_balances_at_end.values())


@dataclass(frozen=True, slots=True)
class Run:
    """The end of a calculation, and what was wanted on the way."""

    balance: Balance
    opening: Snapshot
    """The start of the last phase: a good place to start from the next time."""
    marks: Mapping[datetime, Balance]
    segments: tuple[Segment, ...]
