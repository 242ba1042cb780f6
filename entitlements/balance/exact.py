"""Exact arithmetic: a result that would have to be rounded is an error, never a number."""

from collections.abc import Iterable
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from functools import reduce

ROOM = Context(prec=200, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
"""Amounts have at most 38 digits, so there is room for more sums of them than can ever be."""

ZERO = Decimal(0)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """The sum, exactly. (Python's own `sum` rounds to 28 digits unless told otherwise.)"""
    return reduce(ROOM.add, amounts, ZERO)
