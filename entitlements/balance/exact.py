"""Exact arithmetic: a result that would have to be rounded is an error, never a number."""

from decimal import Context, DivisionByZero, Inexact, InvalidOperation, Overflow

ROOM = Context(prec=200, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
"""Amounts have at most 38 digits, so there is room for more sums of them than can ever be."""
