"""Events of confirmed holds, as they are kept until they are in the event log. Pure."""

import json
from collections.abc import Mapping

from entitlements.events import UsageEvent
from meterline.kernel.instants import from_micros, to_micros


def write_event(event: UsageEvent) -> str:
    """The text of an event; amounts in its data are texts already."""
    return json.dumps(
        [event.id, event.source, event.type, event.subject, to_micros(event.time), event.data],
        ensure_ascii=False,
        separators=(",", ":"),
    )


def read_event(text: str) -> UsageEvent:
    """The same event."""
    event_id, source, kind, subject, micros, data = json.loads(text)
    assert isinstance(data, Mapping)
    return UsageEvent(event_id, source, kind, subject, from_micros(micros), data)
