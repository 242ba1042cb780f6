"""How the log on Kafka has its records written and read: the port of the codec."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Headers = Sequence[tuple[str, bytes | None]]
"""Headers of a record, in their order."""

CONTENT_TYPE = "content-type"
NAMESPACE = "meterline-namespace"
STRUCTURED = b"application/cloudevents+json; charset=UTF-8"
"""Content type of a record that holds a structured event."""


class UnreadableRecordError(Exception):
    """The record holds no event that can be taken; the text says why, for people."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Events of consecutive records: a canonical array, and the hash of each event's key."""

    count: int
    events: bytes
    hashes: Sequence[int]


class Codec(Protocol):
    """Between canonical events and records with one event each.

    The hash of an event is the CRC-32 of the compact JSON array of namespace, source and id. Its
    home partition is the hash modulo the number of partitions.
    """

    def encode(self, namespace: str, events: bytes) -> tuple[Sequence[bytes], Sequence[int]]:
        """The structured value of each event of a canonical array, and the hash of each."""
        ...

    def decode_many(self, namespace: str, values: Sequence[bytes]) -> Sequence[Decoded | None]:
        """The events of records whose content type is exactly `STRUCTURED`, in runs.

        The runs are in the order of the values and hold all of them; None stands for one record
        that only `decode` can judge.
        """
        ...

    def decode(
        self, namespace: str, headers: Headers, key: bytes | None, value: bytes | None
    ) -> Decoded:
        """The one event of any record. Raises `UnreadableRecordError`."""
        ...
