"""How a group of batches becomes one blob of the embedded log, and back. Pure.

A blob is the length of the header, the header (namespace, instant, count and size of each batch)
and then the batches' bytes end to end; zstd over all of it unless it is too short to gain.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import zstandard

from meterline.eventlog.port import Record

RAW = 0
ZSTD = 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SHORT = 256

_Header = list[tuple[str, int, int, int]]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch on its way into the log."""

    namespace: str
    ingested_at: datetime
    count: int
    events: bytes


class Frames:
    """Encodes and decodes groups; keeps its compressor, so one instance serves one thread."""

    def __init__(self, level: int = 1) -> None:
        self._compress = zstandard.ZstdCompressor(level, write_checksum=True).compress
        self._decompress = zstandard.ZstdDecompressor().decompress
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Header).decode

    def encode(self, batches: Sequence[Batch]) -> tuple[int, bytes]:
        """The codec and the blob of a group."""
        header = self._encode(
            [
                (b.namespace, (b.ingested_at - _EPOCH) // _MICROSECOND, b.count, len(b.events))
                for b in batches
            ]
        )
        parts = [len(header).to_bytes(4, "big"), header]
        parts += [batch.events for batch in batches]
        blob = b"".join(parts)
        return (RAW, blob) if len(blob) < _SHORT else (ZSTD, self._compress(blob))

    def decode(self, partition: int, first: int, codec: int, blob: bytes) -> Iterator[Record]:
        """The records of a group whose first offset is `first`."""
        if codec == ZSTD:
            blob = self._decompress(blob)
        end = 4 + int.from_bytes(blob[:4], "big")
        at = end
        for index, (namespace, micros, count, size) in enumerate(self._decode(blob[4:end])):
            instant = _EPOCH + micros * _MICROSECOND
            yield Record(partition, first + index, namespace, instant, count, blob[at : at + size])
            at += size
