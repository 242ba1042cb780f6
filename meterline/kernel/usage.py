"""Usage as one step of the sink adds it up."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

HOLD_SOURCE = "meterline:holds"
"""The `source` of the events that confirmed holds become; their `id` is the hold's."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a plan adds to one subject in one series, for one combination of dimensions.

    `due` is the time of events that lie ahead of the plan's clock; None for all others together.
    """

    series: int
    subject: str
    dims: tuple[str, ...]
    due: datetime | None
    value: Decimal
    count: int
    earliest: datetime
    latest: datetime
