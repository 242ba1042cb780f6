"""Records as Kafka has them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from meterline.eventlog.kafka_codec import Headers


class Row(Protocol):
    """A record as Kafka has it; `offset` is Kafka's own, from 0."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int | None: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


@dataclass(frozen=True, slots=True)
class Run:
    """Records to be written that differ in their values alone.

    `timestamp` is in milliseconds since 1970.
    """

    timestamp: int
    headers: Headers
    values: Sequence[bytes | None]
    key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetch found. Offsets are Kafka's."""

    rows: Iterator[Row]
    after: int
    """Where the next fetch goes on."""
    end: int
    """The offset behind the last record that can be read by now."""
