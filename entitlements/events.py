"""Usage that Meterline itself reports: events like any other, and the port that writes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One CloudEvent. (`source`, `id`) counts once in a namespace, however often it is written.

    `data` is what JSON can hold; an amount in it is a `Decimal` or its text in plain notation.
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    data: Mapping[str, object] = field(default_factory=dict)


class EventWriter(Protocol):
    """Where events are written. The server fills it from the ingest gateway."""

    async def write(self, namespace: str, events: Sequence[UsageEvent]) -> None:
        """Make the events durable; they are when this returns.

        All at once, as long as they fit into one batch of the gateway. After an error some may be
        durable: write them again, they count once. `ValidationError` when an event breaks a limit
        of the gateway, `UnavailableError` when the log cannot take them now.
        """
        ...
