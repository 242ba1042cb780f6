"""gzip and zstd bodies, whole, broken, and made to burst."""

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard

from ingest.encodings import coding_of, decode_body
from ingest.faults import InvalidEventsError
from meterline.kernel.errors import PayloadTooLargeError, UnsupportedMediaError

TEXT = b"a fine body, " * 100
ENCODE: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstandard.compress}


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        (b"", None),
        (b"identity", None),
        (b"gzip", "gzip"),
        (b"GZip ", "gzip"),
        (b"x-gzip", "gzip"),
        (b"identity, zstd", "zstd"),
    ],
)
def test_codings(header: bytes, coding: str | None) -> None:
    assert coding_of(header) == coding


@pytest.mark.parametrize("header", [b"br", b"deflate", b"gzip, gzip", b"gzip, zstd", b"\xff", b"*"])
def test_other_codings_are_unsupported(header: bytes) -> None:
    with pytest.raises(UnsupportedMediaError):
        coding_of(header)


@pytest.mark.parametrize("coding", ENCODE)
def test_bodies(coding: str) -> None:
    whole = ENCODE[coding](TEXT)
    assert decode_body(coding, whole, 10**6) == TEXT
    assert decode_body(coding, whole + whole, 10**6) == TEXT * 2
    assert decode_body(coding, ENCODE[coding](b""), 10**6) == b""


@pytest.mark.parametrize("coding", ENCODE)
def test_the_limit_at_its_edge(coding: str) -> None:
    whole = ENCODE[coding](TEXT)
    assert decode_body(coding, whole, len(TEXT)) == TEXT
    for limit in (len(TEXT) - 1, 0):
        with pytest.raises(PayloadTooLargeError):
            decode_body(coding, whole, limit)
    with pytest.raises(PayloadTooLargeError):
        decode_body(coding, whole + whole, len(TEXT) + 1)


@pytest.mark.parametrize("coding", ENCODE)
def test_broken_bodies(coding: str) -> None:
    whole = ENCODE[coding](TEXT)
    for broken in (b"", b"no", TEXT, b"\0" + whole, whole + b"rest"):
        with pytest.raises(InvalidEventsError) as caught:
            decode_body(coding, broken, 10**6)
        assert caught.value.reason == "invalid_encoding"


def test_a_gzip_body_that_is_cut_off() -> None:
    with pytest.raises(InvalidEventsError):
        decode_body("gzip", gzip.compress(TEXT)[:-9], 10**6)


def test_a_bomb_is_stopped_early() -> None:
    bombs = {"zstd": zstandard.compress(bytes(200_000_000)), "gzip": b""}
    packer = zlib.compressobj(9, wbits=31)
    bombs["gzip"] = b"".join(packer.compress(bytes(1_000_000)) for _ in range(100)) + packer.flush()
    for coding, bomb in bombs.items():
        assert len(bomb) < 110_000
        with pytest.raises(PayloadTooLargeError):
            decode_body(coding, bomb, 1_000_000)


def test_a_zstd_body_with_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    packer = zstandard.ZstdCompressor(compression_params=parameters)
    whole = packer.compressobj()
    body = whole.compress(TEXT) + whole.flush()
    with pytest.raises(InvalidEventsError):
        decode_body("zstd", body, 10**9)
