"""The body of a webhook: `{id, type, timestamp, data}`, less than 20 kB, the same at every try."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from entitlements.notifications.model import EventType
from meterline.kernel.instants import format_instant
from meterline.kernel.quantity import format_number
from meterline.web.json import encode

MAX_BYTES = 20_000

# What describes rather than says what happened, the first to go first.
_DISPENSABLE = ("metadata", "meterGroupByFilters", "advancedMeterGroupByFilters", "config")
_ESSENTIAL = ("id", "key", "type", "subjectKey", "featureId", "featureKey", "currentUsagePeriod")


def payload(event_id: str, kind: EventType, at: datetime, data: Mapping[str, Any]) -> str:
    """The body as text. What does not fit is left out: first metadata, then all but the ids."""
    whole = _encoded(event_id, kind, at, data)
    for name in _DISPENSABLE:
        if len(whole) <= MAX_BYTES:
            break
        data = {key: _without(part, name) for key, part in data.items()}
        whole = _encoded(event_id, kind, at, data)
    if len(whole) > MAX_BYTES:
        described = ("entitlement", "feature", "subject")
        data = {key: _only_ids(part) if key in described else part for key, part in data.items()}
        whole = _encoded(event_id, kind, at, data)
    return whole.decode()


def exact(value: Any) -> Any:
    """The same with each decimal as a plain number of all its digits."""
    if isinstance(value, Decimal):
        return msgspec.Raw(format_number(value).encode())
    if isinstance(value, Mapping):
        return {key: exact(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [exact(part) for part in value]
    return value


def _encoded(event_id: str, kind: EventType, at: datetime, data: Mapping[str, Any]) -> bytes:
    return encode(
        {"id": event_id, "type": kind.value, "timestamp": format_instant(at), "data": exact(data)}
    )


def _without(part: Any, name: str) -> Any:
    return {k: v for k, v in part.items() if k != name} if isinstance(part, Mapping) else part


def _only_ids(part: Any) -> Any:
    return {k: v for k, v in part.items() if k in _ESSENTIAL} if isinstance(part, Mapping) else part
