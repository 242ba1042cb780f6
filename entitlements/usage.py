"""Usage: the port through which balances ask meters. The server fills it from the aggregator."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from meterline.kernel.meters import Meter
from meterline.kernel.periods import Period


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """Whose usage of what: a meter's values of one subject.

    Only events count whose groupBy values are allowed by `filters`: for each key, one of its texts.
    """

    namespace: str
    meter_slug: str
    subject: str
    filters: Mapping[str, tuple[str, ...]]


class UsageReader(Protocol):
    """The meters, as far as balances need them."""

    async def read(self, query: UsageQuery, spans: Sequence[Period]) -> Sequence[Decimal | None]:
        """The meter's value over each span, None where it has none; one read of the store.

        `UnavailableError` when the store cannot answer, `NotFoundError` without such a meter.
        """
        ...

    async def as_of(self) -> datetime:
        """Up to when acknowledged events are in what `read` answers."""
        ...

    async def wait(self, timeout_seconds: float) -> None:
        """Return when every event acknowledged before this call is in what `read` answers.

        `UnavailableError` when that takes longer.
        """
        ...

    async def meter(self, namespace: str, slug: str) -> Meter | None:
        """The meter with that slug, if there is one."""
        ...
