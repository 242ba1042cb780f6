"""Usage records: what a caller reports of a model call, and what is kept of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from meterline.pricing.usage import TokenUsage

SYSTEM_SUBJECT = "meterline:system"
"""Whose the usage of a system is when nobody is named."""


class UsageType(StrEnum):
    """What kind of work a model did."""

    TEXT = "text"
    AUDIO_STT = "audio_stt"
    AUDIO_TTS = "audio_tts"
    EMBEDDING = "embedding"
    IMAGE = "image"


class UsageContext(StrEnum):
    """For whom: a customer, as part of a transaction, or the system itself."""

    CUSTOMER = "customer"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSpec:
    """A call to record. Without `id` it is a new one each time; without `time` it is now.

    `model` is empty when nobody knows it. `terms` are those of the price, beside the standard.
    """

    model: str
    usage: TokenUsage
    context: UsageContext
    subject: str
    usage_type: UsageType = UsageType.TEXT
    id: str | None = None
    time: datetime | None = None
    provider: str | None = None
    terms: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    tags: tuple[str, ...] = ()
    conversation: str | None = None
    transaction_id: str | None = None
    estimated: bool = False
    query: str | None = None
    description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    check_id: str | None = None
    """The check that allowed the call. It is not part of the record."""


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """A recorded call; `data` is that of its event."""

    id: str
    subject: str
    time: datetime
    data: Mapping[str, Any]

    def amount(self, name: str) -> Decimal | None:
        """A number of the data; None when it is not there."""
        text = self.data.get(name)
        return Decimal(text) if isinstance(text, str) else None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a record is in a listing: its time in microseconds, and its place in the log."""

    micros: int
    part: int
    offset: int
    index: int


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records. What is None does not matter; `data` are texts of members of the data."""

    begin: datetime | None = None
    end: datetime | None = None
    subject: str | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    before: Position | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A record in a listing."""

    position: Position
    record: UsageRecord
