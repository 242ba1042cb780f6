"""What was wrong with a request's events, and the error that says so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from meterline.kernel.errors import ValidationError


@dataclass(frozen=True, slots=True)
class Accepted:
    """Events fit for the log: `events` is a compact JSON array of `count` canonical objects."""

    count: int
    events: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong: with an attribute of an event, an event, or (no index) the whole body."""

    index: int | None
    attribute: str | None
    reason: str

    @property
    def where(self) -> str:
        """Where it is, as a path into the body."""
        if self.index is None:
            return "body"
        event = f"events[{self.index}]"
        return event if self.attribute is None else f"{event}.{self.attribute}"

    def as_json(self) -> dict[str, Any]:
        """The fault on the wire."""
        return {
            "index": self.index,
            "attribute": self.attribute,
            "reason": self.reason,
            "where": self.where,
        }


class InvalidEventsError(ValidationError):
    """The request's events are refused, all of them. `reason` is a label for metrics."""

    def __init__(self, faults: Sequence[Fault], *, reason: str, shown: int) -> None:
        bad = {fault.index for fault in faults if fault.index is not None}
        first = faults[0]
        detail = f"{first.where}: {first.reason}"
        if len(bad) > 1:
            detail = f"{len(bad)} events are invalid; the first: {detail}"
        extensions = {
            "validationErrors": [fault.as_json() for fault in faults[:shown]],
            "totalErrors": len(faults),
        }
        super().__init__(detail, extensions=extensions)
        self.reason = reason
        self.faults = tuple(faults)
