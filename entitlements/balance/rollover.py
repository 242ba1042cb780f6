"""What is left of a grant after a reset."""

from decimal import Decimal

from entitlements.balance.model import Grant


def rolled_over(grant: Grant, balance: Decimal) -> Decimal:
    """At least `min_rollover`, but never more than `max_rollover`."""
    kept = balance if balance > grant.min_rollover else grant.min_rollover
    return kept if kept < grant.max_rollover else grant.max_rollover
