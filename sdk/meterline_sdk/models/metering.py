"""Events, meters, subjects, tokens, keys."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from meterline_sdk.models._common import Extra


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A usage event as it was accepted (CloudEvents 1.0)."""

    id: str
    source: str
    type: str
    subject: str | None = None
    time: datetime | None = None
    data: Any = None
    specversion: str = "1.0"
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEvent:
    """An event with when it came, and what is wrong with it."""

    event: Event
    ingested_at: datetime
    stored_at: datetime | None = None
    validation_error: str | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterStatus:
    """Whether a meter answers: `active`, or `building` with its progress from 0 to 1."""

    state: str
    progress: Decimal | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """An aggregation over events of one type."""

    id: str
    slug: str
    event_type: str
    aggregation: str
    value_property: str | None = None
    group_by: dict[str, str] | None = None
    name: str | None = None
    description: str | None = None
    event_from: datetime | None = None
    metadata: dict[str, str] | None = None
    status: MeterStatus | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterRow:
    """A value of one window and one group."""

    value: Decimal | None
    window_start: datetime | None = None
    window_end: datetime | None = None
    subject: str | None = None
    group_by: dict[str, str | None] | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterResult:
    """The answer of a meter's query."""

    data: list[MeterRow]
    from_: datetime | None = None
    to: datetime | None = None
    window_size: str | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Who uses."""

    key: str
    id: str | None = None
    display_name: str | None = None
    metadata: dict[str, Any] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PortalToken:
    """A short-lived token for one subject's browser; `token` is in the answer to its making."""

    id: str
    subject: str
    token: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    expired: bool = False
    allowed_meter_slugs: list[str] | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An API key; `key`, the secret, is in the answer to its making only."""

    id: str
    scopes: list[str]
    name: str | None = None
    prefix: str | None = None
    namespace: str | None = None
    key: str | None = None
    created_at: datetime | None = None
    extra: Extra = field(default_factory=dict)
