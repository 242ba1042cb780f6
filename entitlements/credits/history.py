"""The history of a balance: what moved it, as entries that add up to it. Pure.

Confirmed holds are entered as they are confirmed. Everything else that moves a balance (grants
that begin and end, refills, resets, usage from elsewhere, corrections of the past) is entered by
whoever looks next: `missing` says what. Entries are never changed; what the past turns out to have
been is an entry of its own.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise

from entitlements.balance import Grant, Segment
from entitlements.balance.exact import ROOM, ZERO, total
from meterline.kernel.instants import to_micros


class Kind(StrEnum):
    """Why an entry is there."""

    GRANT = "grant"
    USAGE = "usage"
    EXPIRY = "expiry"
    REFILL = "refill"
    RESET = "reset"
    CORRECTION = "correction"
    """The past is not what it was: late events, grants that were voided or began in the past."""


@dataclass(frozen=True, slots=True)
class Movement:
    """Something that moved a balance. `ref` names it: it is entered once."""

    kind: Kind
    amount: Decimal
    at: int
    ref: str
    reason: str = ""


def movements(
    grants: Sequence[Grant], segments: Sequence[Segment], begin: datetime, now: datetime
) -> list[Movement]:
    """All that moved a balance but usage: every grant since `begin`, when measurement began, and
    what happened in the time that the segments tell of."""
    found = [
        _granted(one)
        for one in grants
        if one.effective_at <= now
        and (one.ends_at is None or one.ends_at > max(one.effective_at, begin))
    ]
    by_id = {one.id: one for one in grants}
    for before, after in pairwise(segments):
        found += _between(before, after, by_id)
    return [one for one in found if one.amount]


def missing(
    known: Iterable[str], possible: Sequence[Movement], ledger: Decimal, target: Decimal, now: int
) -> list[Movement]:
    """What must be entered after `known` refs and a sum of `ledger`, so that it is `target`."""
    entered = set(known)
    new = [one for one in possible if one.ref not in entered]
    rest = ROOM.subtract(target, ROOM.add(ledger, total(one.amount for one in new)))
    if rest < 0:
        new.append(Movement(Kind.USAGE, rest, now, "", "metered"))
    elif rest > 0:
        new.append(Movement(Kind.CORRECTION, rest, now, ""))
    return new


def _granted(grant: Grant) -> Movement:
    return Movement(Kind.GRANT, grant.amount, to_micros(grant.effective_at), f"grant:{grant.id}")


def _between(before: Segment, after: Segment, grants: dict[str, Grant]) -> Iterable[Movement]:
    """What happened where two segments meet. Grants that begin are told of elsewhere."""
    at = to_micros(after.period.start)
    reset = ZERO
    for grant_id, left in before.grant_balances_at_end.items():
        grant = grants[grant_id]
        now_has = after.grant_balances_at_start.get(grant_id)
        if now_has is None:
            if grant.ends_at is not None and grant.ends_at <= after.period.start:
                yield Movement(Kind.EXPIRY, ROOM.minus(left), at, f"expiry:{grant_id}")
            continue
        change = ROOM.subtract(now_has, left)
        if after.is_rollover:
            reset = ROOM.add(reset, change)
        elif change:
            yield Movement(Kind.REFILL, change, at, f"refill:{grant_id}:{at}")
    if after.is_rollover:
        forgiven = ROOM.subtract(before.overage, after.overage_at_start)
        yield Movement(Kind.RESET, ROOM.add(reset, forgiven), at, f"reset:{at}")
