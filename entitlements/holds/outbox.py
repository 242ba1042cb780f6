"""Events of confirmed holds, as they are kept until they are in the event log. Pure."""

import json
from collections.abc import Mapping

import msgspec

from entitlements.events import UsageEvent
from meterline.kernel.instants import from_micros, to_micros

_encoder = msgspec.json.Encoder()


def write_event(event: UsageEvent) -> str:
    """The text of an event; amounts in its data are texts already."""
    at = to_micros(event.time)
    kept = (event.id, event.source, event.type, event.subject, at, event.data)
    return _encoder.encode(kept).decode()


def read_event(text: str) -> UsageEvent:
    """The same event."""
    event_id, source, kind, subject, micros, data = json.loads(text)
    assert isinstance(data, Mapping)
    return UsageEvent(event_id, source, kind, subject, from_micros(micros), data)
