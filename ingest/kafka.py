"""Canonical events as records of a Kafka topic, and back. Pure.

A record holds one event by the CloudEvents Kafka binding, in structured mode as written here; any
producer's structured and binary records are read. What was accepted once comes back the same:
`decode` of `encode` is the identity on canonical events.
"""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ingest.exact import JSON_ERRORS
from ingest.fast import FastReader
from ingest.faults import Fault, InvalidEventsError
from ingest.limits import IngestLimits
from ingest.parse import Parser
from meterline.eventlog.kafka_codec import Decoded, UnreadableRecordError
from meterline.kernel.errors import MeterlineError

_FEW = 8
_SPECIAL = ("_raw", "_ext")


class _Plain(
    msgspec.Struct,
    tag_field="specversion",
    tag="1.0",
    forbid_unknown_fields=True,
    kw_only=True,
    gc=False,
):
    """A canonical event that is written as it is, but for the version; nearly all are."""

    id: str
    source: str
    type: str
    subject: str | UnsetType = UNSET
    time: str | UnsetType = UNSET
    datacontenttype: str | UnsetType = UNSET
    data: Raw


class _Key(msgspec.Struct, gc=False):
    id: str
    source: str


_decode_plain = msgspec.json.Decoder(list[_Plain]).decode
_decode_keys = msgspec.json.Decoder(list[_Key]).decode
_decode_raws = msgspec.json.Decoder(list[Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode
_encoder = msgspec.json.Encoder()


class KafkaCodec:
    """Between canonical events and the values of records, within the limits of ingest.

    See `meterline.eventlog.kafka_codec.Codec`.
    """

    def __init__(self, limits: IngestLimits) -> None:
        self._fast = FastReader(limits)
        self._parser = Parser(limits)

    def encode(self, namespace: str, events: bytes) -> tuple[list[bytes], list[int]]:
        """The value of each event of a canonical array, and the hash of each key."""
        if b"\n" not in events:
            try:
                plain = _decode_plain(events)
            except JSON_ERRORS:
                pass
            else:
                values = _encoder.encode_lines(plain).split(b"\n")
                values.pop()
                return values, _hashes(namespace, plain)
        values = [_structured(bytes(raw)) for raw in _decode_raws(events)]
        return values, _hashes(namespace, _decode_keys(events))

    def decode_many(self, namespace: str, values: Sequence[bytes]) -> list[Decoded | None]:
        """The events of structured records, in runs; None for one that `decode` must judge.

        The runs are in the order of the values, and hold all of them.
        """
        read = self._fast.read_each(values)
        if read is not None:
            canonical, events = read
            return [Decoded(len(events), canonical, _hashes(namespace, events))]
        if len(values) <= _FEW:
            return [None] * len(values)
        half = len(values) // 2
        return self.decode_many(namespace, values[:half]) + self.decode_many(
            namespace, values[half:]
        )

    def decode(
        self,
        namespace: str,
        headers: Sequence[tuple[str, bytes | None]],
        key: bytes | None,
        value: bytes | None,
    ) -> Decoded:
        """The event of any record. Raises `UnreadableRecordError`."""
        present = [(name, text) for name, text in headers if text is not None]
        try:
            accepted = self._parser.parse_kafka(present, key, value)
        except InvalidEventsError as error:
            raise UnreadableRecordError("; ".join(map(_text, error.faults[:_FEW]))) from None
        except MeterlineError as error:
            raise UnreadableRecordError(error.detail) from None
        return Decoded(
            accepted.count, accepted.events, _hashes(namespace, _decode_keys(accepted.events))
        )


def _structured(canonical: bytes) -> bytes:
    """A canonical event as a structured CloudEvent."""
    members = _decode_members(canonical)
    parts = [b'"specversion":"1.0"']
    parts += [
        b'"%b":%b' % (name.encode(), raw) for name, raw in members.items() if name not in _SPECIAL
    ]
    if "_raw" in members:
        parts.append(b'"data":' + _decode_text(members["_raw"]).encode())
    if "_ext" in members:
        parts.append(bytes(members["_ext"])[1:-1])
    return b"{" + b",".join(parts) + b"}"


def _text(fault: Fault) -> str:
    return fault.reason if fault.attribute is None else f"{fault.attribute}: {fault.reason}"


def _hashes(namespace: str, events: Sequence[Any]) -> list[int]:
    """The hash of each event's key."""
    return key_hashes([(namespace, event.source, event.id) for event in events])


def key_hashes(keys: Sequence[tuple[str, str, str]]) -> list[int]:
    """The hash of each key, the CRC-32 of the compact JSON array of namespace, source and id."""
    lines = _encoder.encode_lines(keys).split(b"\n")
    lines.pop()
    return list(map(crc32, lines))
