"""Channels, rules, and what they have fired."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from meterline_sdk.models._common import Extra


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """Where notifications go. `signing_secret` verifies them."""

    id: str
    type: str
    name: str
    url: str | None = None
    disabled: bool = False
    custom_headers: dict[str, str] | None = None
    signing_secret: str | None = None
    metadata: dict[str, str] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """When notifications are sent, and to which channels."""

    id: str
    type: str
    name: str
    disabled: bool = False
    channels: list[dict[str, Any]] = field(default_factory=list)
    features: list[dict[str, Any]] | None = None
    thresholds: list[dict[str, Any]] | None = None
    lead_time: str | None = None
    metadata: dict[str, str] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """A notification, and how its delivery went."""

    id: str
    type: str
    created_at: datetime | None = None
    rule: Rule | None = None
    delivery_status: list[dict[str, Any]] = field(default_factory=list)
    payload: dict[str, Any] = field(default_factory=dict)
    extra: Extra = field(default_factory=dict)
