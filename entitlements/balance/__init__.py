"""The pure core: what is left of an allowance, at any instant, given the usage.

`plan` cuts time at every change, its `spans` are read from the meter all at once, and `burn` says
what the values leave. `balance_at` does all three.
"""

from datetime import datetime

from entitlements.balance.burndown import burn
from entitlements.balance.history import History, HistoryPlan, Window, history, plan_history
from entitlements.balance.metering import Metering, UsageReader, metering_of
from entitlements.balance.model import (
    Allowance,
    Grant,
    Reset,
    Terms,
    burn_order,
    issued_after_reset,
)
from entitlements.balance.phases import Plan, plan
from entitlements.balance.results import Balance, Run, Segment
from entitlements.balance.rules import check_reset, check_void
from entitlements.balance.snapshots import Snapshot, newest
from entitlements.balance.timeline import anchor_at, period_at

__all__ = [
    "Allowance",
    "Balance",
    "Grant",
    "History",
    "HistoryPlan",
    "Metering",
    "Plan",
    "Reset",
    "Run",
    "Segment",
    "Snapshot",
    "Terms",
    "UsageReader",
    "Window",
    "anchor_at",
    "balance_at",
    "burn",
    "burn_order",
    "check_reset",
    "check_void",
    "history",
    "issued_after_reset",
    "metering_of",
    "newest",
    "period_at",
    "plan",
    "plan_history",
]


def balance_at(
    allowance: Allowance, at: datetime, read: UsageReader, *, since: Snapshot | None = None
) -> Balance:
    """The balance at an instant: what happens at it has happened, usage counts before it."""
    planned = plan(allowance, at, since=since)
    return burn(planned, read(planned.spans)).balance
