"""A meter in memory: what a reader of the engine answers, as slowly and plainly as can be."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from entitlements.balance.exact import total
from meterline.kernel.meters import Aggregation
from meterline.kernel.periods import Period


@dataclass(frozen=True, slots=True)
class Event:
    time: datetime
    amount: Decimal
    text: str = ""
    """What UNIQUE_COUNT counts."""


@dataclass
class MemoryMeter:
    """Events in order of arrival, aggregated anew for each span."""

    aggregation: Aggregation = Aggregation.SUM
    events: list[Event] = field(default_factory=list)

    def add(self, time: datetime, amount: Decimal | int, text: str = "") -> None:
        self.events.append(Event(time, Decimal(amount), text))

    def read(self, spans: Sequence[Period]) -> list[Decimal | None]:
        return [self.value([e for e in self.events if e.time in span]) for span in spans]

    def value(self, events: list[Event]) -> Decimal | None:
        if not events:
            return None
        match self.aggregation:
            case Aggregation.SUM:
                return total(e.amount for e in events)
            case Aggregation.COUNT:
                return Decimal(len(events))
            case Aggregation.UNIQUE_COUNT:
                return Decimal(len({e.text for e in events}))
            case Aggregation.MAX:
                return max(e.amount for e in events)
            case Aggregation.LATEST:
                latest = max(range(len(events)), key=lambda i: (events[i].time, i))
                return events[latest].amount
        raise ValueError(self.aggregation)
