"""The usage periods of an entitlement, and the resets between them.

The first period starts with measurement. From there on time is cut at every occurrence of the
usage period, counted from its anchor, and at every reset by hand, which may move the anchor.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from entitlements.balance.model import Allowance
from meterline.kernel.periods import NEVER, Period, Recurrence


class Border(NamedTuple):
    """The instant at which a usage period ends by a reset and the next one starts."""

    at: datetime
    preserve_overage: bool


class _Stretch(NamedTuple):
    """The time under one anchor: from the start of measurement or a reset, to the next reset."""

    start: datetime
    end: datetime
    recurrence: Recurrence
    preserve_overage: bool


def borders(allowance: Allowance, after: datetime, until: datetime) -> Iterator[Border]:
    """Every reset in (after, until], in order: by hand and between usage periods."""
    preserve = allowance.terms.preserve_overage_at_reset
    for stretch in _stretches(allowance):
        if stretch.end <= after:
            continue
        if stretch.start > until:
            break
        if stretch.start > after and stretch.start != allowance.terms.measure_from:
            yield Border(stretch.start, stretch.preserve_overage)
        for at in stretch.recurrence.between(max(after, stretch.start), until):
            if at >= stretch.end:
                break
            yield Border(at, preserve)


def period_at(allowance: Allowance, t: datetime) -> Period:
    """The usage period that holds `t`; the first one for a `t` before measurement starts."""
    t = max(t, allowance.terms.measure_from)
    stretch = next(s for s in _stretches(allowance) if s.start <= t < s.end)
    natural = stretch.recurrence.period(t)
    return Period(max(natural.start, stretch.start), min(natural.end, stretch.end))


def anchor_at(allowance: Allowance, t: datetime) -> datetime:
    """The anchor of the usage period in force at `t`."""
    t = max(t, allowance.terms.measure_from)
    return next(s.recurrence.anchor for s in _stretches(allowance) if s.start <= t < s.end)


def _stretches(allowance: Allowance) -> Iterator[_Stretch]:
    terms = allowance.terms
    recurrence, preserve = terms.usage_period, False
    start = terms.measure_from
    for reset in sorted(allowance.resets, key=lambda reset: reset.at):
        if reset.at <= terms.measure_from:
            continue
        if reset.at > start:
            yield _Stretch(start, reset.at, recurrence, preserve)
        start = reset.at
        if not reset.retain_anchor:
            recurrence = replace(recurrence, anchor=start)
        own = reset.preserve_overage
        preserve = terms.preserve_overage_at_reset if own is None else own
    yield _Stretch(start, NEVER, recurrence, preserve)
