"""Reads a file of usage as a stream of records, in memory that does not grow with the file.

A record is the cells of a CSV row or the JSON text of an object, with the number of the line it
ends on. Plain files, gzip and zstd are told apart by their first bytes.
"""

import codecs
import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NoReturn, cast

import zstandard

from meterline.server.cli.import_rows import (
    RowError,
    RowMapping,
    csv_mapper,
    object_mapper,
)

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

Format = Literal["ndjson", "json", "csv"]
MAX_RECORD_BYTES = 16 * 1024 * 1024
_CHUNK = 1 << 18

READ_ERRORS = (RowError, OSError, EOFError, zlib.error, zstandard.ZstdError)
"""What reading a broken, cut-off or lost file raises."""

MappedRow = tuple[int, str | RowError]
"""(number of the line, the event's JSON text or why there is none)"""


@dataclass(frozen=True, slots=True)
class Source:
    """An open input: decompressed bytes, and how far the file itself has been read."""

    stream: io.BufferedReader
    position: Callable[[], int]
    size: int | None
    close: Callable[[], None]

    def first_bytes(self) -> bytes:
        """Some bytes of the content, which stay to be read."""
        return self.stream.peek(_CHUNK)


def open_source(path: Path | None) -> Source:
    """Open a file, or standard input when `path` is None, and undo its compression."""
    raw: BinaryIO = sys.stdin.buffer if path is None else path.open("rb")
    size = None if path is None else path.stat().st_size
    file = _buffered(raw)
    head = file.peek(4)
    stream = file
    if head.startswith(b"\x1f\x8b"):
        stream = _buffered(gzip.GzipFile(fileobj=file))
    elif head.startswith(b"\x28\xb5\x2f\xfd"):
        decompressor = zstandard.ZstdDecompressor()
        stream = _buffered(decompressor.stream_reader(file, read_across_frames=True))
    return Source(stream, (lambda: 0) if path is None else file.tell, size, file.close)


def _buffered(raw: object) -> io.BufferedReader:
    if isinstance(raw, io.BufferedReader):
        return raw
    return io.BufferedReader(cast("io.RawIOBase", raw), _CHUNK)


def guess_format(name: str, first_bytes: bytes) -> Format:
    """The format of a file by its name, else by the first bytes of its decompressed content."""
    stem = name.lower()
    for ending in (".gz", ".zst", ".zstd"):
        stem = stem.removesuffix(ending)
    if stem.endswith((".csv", ".tsv")):
        return "csv"
    if stem.endswith((".ndjson", ".jsonl")):
        return "ndjson"
    if stem.endswith(".json"):
        return "json"
    start = first_bytes.removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    return "json" if start == b"[" else "ndjson" if start == b"{" else "csv"


def mapped_rows(
    stream: BinaryIO,
    file_format: Format,
    mapping: RowMapping,
    *,
    delimiter: str = ",",
    skip: int = 0,
) -> Iterator[MappedRow]:
    """The rows of the file as events, without the first `skip` ones.

    Raises RowError when the file as a whole cannot be read.
    """
    if file_format == "csv":
        yield from _csv_rows(stream, mapping, delimiter, skip)
        return
    records = ndjson_records(stream) if file_format == "ndjson" else json_array_records(stream)
    to_event = object_mapper(mapping)
    for number, (line, record) in enumerate(records, start=1):
        if number <= skip:
            continue
        if isinstance(record, RowError):
            yield line, record
            continue
        try:
            yield line, to_event(number, record)
        except RowError as error:
            yield line, error


def _csv_rows(
    stream: BinaryIO, mapping: RowMapping, delimiter: str, skip: int
) -> Iterator[MappedRow]:
    # surrogateescape keeps bytes that are not UTF-8 recognisable, so that they fail their own row.
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _mapped_cells(csv.reader(text, delimiter=delimiter, strict=True), mapping, skip)
    finally:
        text.detach()  # else the stream would be closed, which is not ours


def _mapped_cells(reader: "CsvReader", mapping: RowMapping, skip: int) -> Iterator[MappedRow]:
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise RowError(f"the header cannot be read: {error}") from error
    if header is None:
        return
    to_event = csv_mapper(mapping, header)
    number = 0
    while True:
        try:
            for cells in reader:
                if not cells:
                    continue
                number += 1
                if number <= skip:
                    continue
                try:
                    event = to_event(number, cells)
                except RowError as error:
                    yield reader.line_num, error
                else:
                    yield reader.line_num, event
            return
        except csv.Error as error:
            number += 1
            if number > skip:
                yield reader.line_num, RowError(str(error))


def ndjson_records(stream: BinaryIO) -> Iterator[tuple[int, str | RowError]]:
    """The lines of a file that are not blank, each a JSON text."""
    for line, raw in enumerate(iter(lambda: stream.readline(MAX_RECORD_BYTES + 1), b""), start=1):
        if len(raw) > MAX_RECORD_BYTES:
            raise RowError(f"line {line} is longer than {MAX_RECORD_BYTES} bytes")
        try:
            text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            yield line, RowError(f"not UTF-8: {error.reason}")
            continue
        if text:
            yield line, text


def json_array_records(stream: BinaryIO) -> Iterator[tuple[int, str]]:
    """The JSON texts of the elements of one array of objects, read piece by piece.

    Objects that follow one another without an array are taken too.
    """
    return _ArrayScanner(stream).elements()


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


class _ArrayScanner:
    """Finds the ends of an array's elements. A cut-off object never parses."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = json.JSONDecoder(
            parse_float=str, parse_int=str, parse_constant=_refuse
        ).raw_decode
        self._text = ""
        self._at = 0
        self._line = 1
        self._ended = False

    def elements(self) -> Iterator[tuple[int, str]]:
        if self._peek() == "{":
            while self._peek():
                yield self._element()
            return
        self._expect("[")
        if self._peek() == "]":
            self._advance(1)
        else:
            while True:
                yield self._element()
                if self._expect(",]") == "]":
                    break
        if self._peek():
            raise self._error("something follows the end of the array")

    def _element(self) -> tuple[int, str]:
        if self._peek() != "{":
            raise self._error("expected an object")
        wanted = _CHUNK
        while True:
            try:
                _, end = self._scan(self._text, self._at)
                break
            except (ValueError, RecursionError) as error:
                if self._ended or isinstance(error, RecursionError):
                    raise self._error(f"not JSON: {error}") from error
                if len(self._text) - self._at > MAX_RECORD_BYTES:
                    raise self._error(f"element longer than {MAX_RECORD_BYTES}") from error
                self._fill(wanted)
                wanted *= 2
        element = self._text[self._at : end]
        self._advance(end - self._at)
        return self._line, element

    def _expect(self, characters: str) -> str:
        found = self._peek()
        if not found or found not in characters:
            raise self._error(f"expected {' or '.join(characters)}, not {found or 'the end'!r}")
        self._advance(1)
        return found

    def _peek(self) -> str:
        """The next character that is not white space, '' at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._advance(1)
            if self._ended:
                return ""
            self._fill(_CHUNK)

    def _advance(self, characters: int) -> None:
        self._line += self._text.count("\n", self._at, self._at + characters)
        self._at += characters

    def _fill(self, size: int) -> None:
        data = self._stream.read(size)
        self._ended = not data
        try:
            more = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise self._error(f"not UTF-8: {error.reason}") from error
        self._text = self._text[self._at :] + more
        self._at = 0

    def _error(self, reason: str) -> RowError:
        return RowError(f"line {self._line}: {reason}")
