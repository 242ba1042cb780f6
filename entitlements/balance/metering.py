"""How the values of a meter become usage of a period.

A reader answers for spans of time what the meter says of each, as a meter query would. Which
spans to ask for, and what the answers mean, depends on how the meter's values go together.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from enum import Enum

from meterline.kernel.errors import ValidationError
from meterline.kernel.meters import Aggregation
from meterline.kernel.periods import Period

UsageReader = Callable[[Sequence[Period]], Sequence[Decimal | None]]
"""The meter's value over each span; None where it has none."""


class Metering(Enum):
    """How the values of two adjoining spans go together."""

    ADDITIVE = "additive"
    """SUM, COUNT: they add up."""

    CUMULATIVE = "cumulative"
    """UNIQUE_COUNT, MAX: only the value since the start of the period is meaningful."""

    GAUGE = "gauge"
    """LATEST: the same, and it may fall. Grants are limits of it, which it does not use up."""

    def span(self, period_start: datetime, start: datetime, end: datetime) -> Period:
        """What to ask for, to learn the usage between `start` and `end` of a period."""
        return Period(start if self is Metering.ADDITIVE else period_start, end)

    def usage(self, before: Decimal, value: Decimal) -> Decimal:
        """The usage of the period so far, given what it was before that span."""
        return before + value if self is Metering.ADDITIVE else value


_METERING = {
    Aggregation.SUM: Metering.ADDITIVE,
    Aggregation.COUNT: Metering.ADDITIVE,
    Aggregation.UNIQUE_COUNT: Metering.CUMULATIVE,
    Aggregation.MAX: Metering.CUMULATIVE,
    Aggregation.LATEST: Metering.GAUGE,
}


def metering_of(aggregation: Aggregation) -> Metering:
    """How a meter of that aggregation measures usage; an error when it cannot."""
    if aggregation not in _METERING:
        usable = ", ".join(_METERING)
        raise ValidationError(f"a metered feature needs a meter of {usable}, not {aggregation}")
    return _METERING[aggregation]
