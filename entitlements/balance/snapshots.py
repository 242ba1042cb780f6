"""A balance kept to start from later, instead of from the start of measurement.

A snapshot is a cache: with or without it, every answer is the same. So it must be dropped as soon
as anything before it changes: usage, a grant, a reset or the entitlement itself.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at the start of a phase, when what happens at that instant has happened."""

    at: datetime
    period_start: datetime
    usage: Decimal
    """Of the period, before `at`."""
    burnt: Decimal
    """What grants have paid in the period, before `at`."""
    owed: Decimal
    """Usage that no grant has paid yet; negative when corrections took back more than was paid."""
    balances: Mapping[str, Decimal]
    """Of the active grants, by id."""
    filled: Mapping[str, Decimal]
    """What each of them was last set to: by its start, a recurrence or a reset."""

    def survives(self, changed_at: datetime) -> bool:
        """Whether it still holds after a change of something at that instant."""
        return self.at < changed_at


def newest(snapshots: Iterable[Snapshot], at: datetime) -> Snapshot | None:
    """The best one to start from for an answer at `at`; None when all are later."""
    return max((s for s in snapshots if s.at <= at), key=lambda s: s.at, default=None)
