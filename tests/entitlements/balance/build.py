"""Short ways to write an allowance down by hand."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from entitlements.balance import Allowance, Balance, Grant, Reset, Terms, balance_at, metering_of
from meterline.kernel.meters import Aggregation
from meterline.kernel.periods import Recurrence, parse_interval
from meterline.kernel.windows import load_zone
from tests.entitlements.balance.usage import MemoryMeter

START = datetime(2025, 1, 1, tzinfo=UTC)


def at(text: str) -> datetime:
    """An instant of 2025, as `02-28` or `02-28T12:30`; or any other, written in full."""
    instant = datetime.fromisoformat(text if text[4:5] == "-" else f"2025-{text}")
    return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)


def grant(name: str, amount: str | int, start: datetime = START, **options: Any) -> Grant:
    options = {k: Decimal(v) if k.endswith("rollover") else v for k, v in options.items()}
    return Grant(name, Decimal(amount), start, options.pop("created_at", START), **options)


def every(interval: str, anchor: datetime = START, zone: str | None = None) -> Recurrence:
    return Recurrence(anchor, parse_interval(interval), load_zone(zone) if zone else None)


class Case:
    """An allowance and a meter, and what the engine says of them."""

    def __init__(
        self,
        *grants: Grant,
        resets: Iterable[Reset] = (),
        period: Recurrence | None = None,
        aggregation: Aggregation = Aggregation.SUM,
        measure_from: datetime = START,
        **terms: Any,
    ) -> None:
        self.meter = MemoryMeter(aggregation)
        self.allowance = Allowance(
            Terms(measure_from, period or every("P1M"), metering_of(aggregation), **terms),
            grants,
            tuple(resets),
        )

    def use(self, when: str, amount: str | int, text: str = "") -> "Case":
        self.meter.add(at(when), Decimal(amount), text)
        return self

    def balance(self, when: str) -> Balance:
        return balance_at(self.allowance, at(when), self.meter.read)

    def figures(self, when: str) -> tuple[Any, Any, Any]:
        """Balance, usage and overage. (To be compared with whole numbers.)"""
        found = self.balance(when)
        return found.balance, found.usage, found.overage


def row(*values: Any) -> tuple[Any, ...]:
    """Figures to be compared all at once, with whole numbers too."""
    return values
