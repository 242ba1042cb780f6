"""A balance between two changes: one snapshot and one number are enough.

Until the next change, nothing but usage moves a balance. So with the state at the last change and
the usage since then, a balance is one payment away, whatever lies before it.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext

from entitlements.balance.burndown import settle
from entitlements.balance.exact import ROOM, ZERO, total
from entitlements.balance.model import Allowance
from entitlements.balance.results import Balance
from entitlements.balance.snapshots import Snapshot
from entitlements.balance.timeline import period_at


@dataclass(frozen=True, slots=True)
class Standing:
    """The state since the last change, good for instants in [opening.at, until).

    For additive meters only: of others, usage before and after an instant do not add up.
    """

    opening: Snapshot
    until: datetime

    def __contains__(self, t: datetime) -> bool:
        return self.opening.at <= t < self.until

    def balance(self, usage: Decimal, at: datetime) -> Balance:
        """The balance at an instant, given the usage in [opening.at, at)."""
        opening = self.opening
        filled, balances = list(opening.filled.values()), list(opening.balances.values())
        with localcontext(ROOM):
            active = range(len(balances))
            balances, owed = settle(active, filled, balances, opening.owed + usage)
            left = total(balances)
            return Balance(
                at=at,
                period_start=opening.period_start,
                balance=left,
                usage=opening.usage + usage,
                overage=max(owed, ZERO),
                total_available_grant_amount=opening.burnt + opening.owed + usage - owed + left,
                grant_balances=dict(zip(opening.balances, balances, strict=True)),
            )


def next_change(allowance: Allowance, after: datetime) -> datetime:
    """The first instant after `after` at which more than usage changes a balance."""
    changes = [period_at(allowance, after).end]
    changes += [reset.at for reset in allowance.resets if reset.at > after]
    if after < allowance.terms.measure_from:
        changes.append(allowance.terms.measure_from)
    for grant in allowance.grants:
        ends_at = grant.ends_at
        if ends_at is not None and ends_at <= after:
            continue
        if grant.effective_at > after:
            changes.append(grant.effective_at)
        elif grant.recurrence:
            changes.append(grant.recurrence.period(after).end)
        if ends_at is not None:
            changes.append(ends_at)
    return min(changes)
