"""Usage as one step of the sink adds it up."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal


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
