"""Content codings of a request body: gzip and zstd, within a limit on what comes out. Pure."""

import io
import zlib

import zstandard

from ingest.faults import Fault, InvalidEventsError
from meterline.kernel.errors import PayloadTooLargeError, UnsupportedMediaError

_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# What RFC 9659 lets a sender of `zstd` use.
_ZSTD_WINDOW_BYTES = 8 * 1024 * 1024
_DECODERS = ("gzip", "zstd")


def coding_of(content_encoding: bytes) -> str | None:
    """The coding that the header names, None for no coding; `UnsupportedMediaError` for others."""
    names = [name.strip().lower() for name in content_encoding.decode("latin-1").split(",")]
    codings = [name.removeprefix("x-") for name in names if name not in ("", "identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in _DECODERS:
        raise UnsupportedMediaError(
            "this endpoint reads Content-Encoding gzip, zstd and identity",
            extensions={"acceptEncoding": "gzip, zstd"},
        )
    return codings[0]


def decode_body(coding: str, body: bytes, limit: int) -> bytes:
    """The decoded body; stops at `limit` bytes, so a small body cannot fill the memory."""
    try:
        decoded = _gunzip(body, limit) if coding == "gzip" else _unzstd(body, limit)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        fault = Fault(None, None, f"the body is not valid {coding}: {error}")
        raise InvalidEventsError([fault], reason="invalid_encoding", shown=1) from None
    if len(decoded) > limit:
        raise PayloadTooLargeError(
            f"the request body has more than {limit} bytes once decompressed",
            extensions={"maxDecompressedBytes": limit},
        )
    return decoded


def _gunzip(body: bytes, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while body and size <= limit:
        member = zlib.decompressobj(_GZIP_WINDOW)
        part = member.decompress(body, limit - size + 1)
        parts.append(part)
        size += len(part)
        if not member.eof and size <= limit:
            raise EOFError("it is cut off")
        body = member.unused_data
    if not parts:
        raise EOFError("it is empty")
    return b"".join(parts)


def _unzstd(body: bytes, limit: int) -> bytes:
    if not body:
        raise EOFError("it is empty")
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES)
    with decoder.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
        parts: list[bytes] = []
        size = 0
        while size <= limit and (part := reader.read(min(1 << 20, limit - size + 1))):
            parts.append(part)
            size += len(part)
    return b"".join(parts)
