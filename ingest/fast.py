"""The fast reader: whole batches in bulk, or no verdict at all. Pure.

It knows one shape, the events that nearly everybody sends, and proves with a few passes in C that
a batch is nothing else. When a proof fails it answers None, and the exact reader decides. What it
accepts, the exact reader accepts with the same meaning; tests hold the two together.
"""

import re
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import accumulate
from operator import itemgetter
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Raw, UnsetType

from ingest.attributes import SourceFault, text_fault, uri_reference_fault
from ingest.bounds import data_fault, free_size
from ingest.exact import JSON_ERRORS
from ingest.faults import Accepted
from ingest.limits import IngestLimits

_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_SHAPES = frozenset(
    b"0000-00-00T00:00:00" + fraction + offset
    for fraction in [b"", *(b"." + b"0" * digits for digits in range(1, 10))]
    for offset in (b"Z", b"+00:00", b"-00:00")
)
_OFFSET = re.compile(r"[+-](?:[01][0-9]|2[0-3]):[0-5][0-9]")
_NUMBER_TO_ZERO = bytes(48 if byte in b"0123456789eE+.-" else 32 for byte in range(256))
_OBJECT = frozenset(b"{")
_SPECVERSION = len('"specversion":"1.0",')
_QUOTE = ord('"')
_FIVE = ord("5")
_Z = ord("Z")
_SMALL = 1000
_REMEMBERED_SOURCES = 10_000


class FastReader:
    """Reads JSON events in bulk."""

    def __init__(
        self, limits: IngestLimits, source_fault: SourceFault = uri_reference_fault
    ) -> None:
        self._limits = limits
        self._source_fault = source_fault
        self._free_size = free_size(limits)
        self._strict = _decoders(_event_type(limits, lenient=False))
        self._lenient = _decoders(_event_type(limits, lenient=True))
        self._encode = msgspec.json.Encoder().encode
        self._sources: set[str] = set()

    def read(self, body: bytes, *, batch: bool, lenient: bool) -> Accepted | None:
        """The events of a body, None when it is not plainly right."""
        plain = body.isascii() and b"\\" not in body and b"\x7f" not in body
        try:
            decode, decode_one = self._lenient if lenient else self._strict
            events: list[Any] = decode(body) if batch else [decode_one(body)]
            if not plain:
                body.decode()
        except JSON_ERRORS:
            return None
        if len(events) > self._limits.max_batch_events:
            return None
        canonical = self._prove(events, body, lenient, len(body) + (0 if batch else 2), plain)
        return None if canonical is None else Accepted(len(events), canonical)

    def read_each(self, values: Sequence[bytes]) -> tuple[bytes, list[Any]] | None:
        """The canonical array of values that hold one structured event each, and the events.

        None when they are not all plainly right. The events have `source` and `id`.
        """
        body = b",".join(values)
        plain = body.isascii() and b"\\" not in body and b"\x7f" not in body
        try:
            events = list(map(self._strict[1], values))
            if not plain:
                body.decode()
        except JSON_ERRORS:
            return None
        canonical = self._prove(events, body, False, len(body) + 2, plain)
        return None if canonical is None else (canonical, events)

    def _prove(
        self, events: list[Any], body: bytes, lenient: bool, size: int, plain: bool
    ) -> bytes | None:
        """The canonical array, when nothing is wrong with the events.

        `body` is what they were read from; `size` is its length with the brackets of an array.
        """
        versions = len(events)
        if lenient:
            versions = [event.specversion for event in events].count("1.0")
        for event in events:
            event.specversion = UNSET  # the same in all; it is not kept
        if (
            not self._are_sources({event.source for event in events})
            or not _are_times([event.time for event in events if event.time is not UNSET])
            or not self._is_data([event.data for event in events])
            or not (plain or _are_texts(events))
        ):
            return None
        canonical: bytes = self._encode(events)
        return canonical if _is_all(body, canonical, versions, size, plain) else None

    def _are_sources(self, sources: set[str]) -> bool:
        new = sources - self._sources
        for source in new:
            if self._source_fault(source) is not None:
                return False
            if len(self._sources) >= _REMEMBERED_SOURCES:
                self._sources.clear()
            self._sources.add(source)
        return True

    def _is_data(self, values: list[Any]) -> bool:
        """Whether all data are objects within the limits (or not there)."""
        sizes = list(map(len, values))
        if 0 in sizes or not sizes:
            values = [value for value in values if len(value)]
            sizes = [size for size in sizes if size]
            if not values:
                return True
        joined = b"".join(values)
        starts = accumulate(sizes[:-1], initial=0)
        if not _OBJECT.issuperset(itemgetter(*starts, 0)(joined)):
            return False
        if max(sizes) < self._free_size:
            return True
        longer = [value for value in values if len(value) >= self._free_size]
        return self._within_limits(joined, longer)

    def _within_limits(self, joined: bytes, values: list[Any]) -> bool:
        """Whether `values`, of all that are `joined`, keep the limits."""
        limits = self._limits
        # A number beyond the limit covers at least `samples` of every `stride`th character.
        stride = max(1, limits.max_number_digits // 16)
        samples = max(1, limits.max_number_digits // stride)
        if b"0" * samples in joined[::stride].translate(_NUMBER_TO_ZERO):
            return all(data_fault(bytes(value), limits) is None for value in values)
        for value in map(bytes, values):
            opened = value.count(b"{") + value.count(b"[")
            suspect = opened > limits.max_depth or len(value) > 2 * limits.max_members
            if suspect and data_fault(value, limits) is not None:
                return False
        return True


def _decoders(event: Any) -> tuple[Callable[[bytes], list[Any]], Callable[[bytes], Any]]:
    """Of an array of events, and of one."""
    return msgspec.json.Decoder(list[event]).decode, msgspec.json.Decoder(event).decode


def _event_type(limits: IngestLimits, *, lenient: bool) -> type[msgspec.Struct]:
    """The shape that the fast reader knows, in the order of the canonical object.

    `lenient`: without `specversion`, too.
    """
    text = Annotated[str, Meta(min_length=1, max_length=limits.max_attribute_length)]
    subject: Any = (
        ("subject", text) if limits.require_subject else ("subject", text | UnsetType, UNSET)
    )
    version: Any = ("specversion", Literal["1.0"])
    if lenient:
        version = ("specversion", Literal["1.0"] | UnsetType, UNSET)
    return msgspec.defstruct(
        "PlainEvent",
        [
            ("id", text),
            ("source", text),
            ("type", text),
            subject,
            ("time", str | UnsetType, UNSET),
            ("datacontenttype", Literal["application/json"] | UnsetType, UNSET),
            ("data", Raw, Raw()),
            version,
        ],
        kw_only=True,
        forbid_unknown_fields=True,
        omit_defaults=True,
        gc=False,
    )


def _are_times(times: list[str]) -> bool:
    """Whether all are RFC 3339 of the years 1900 to 2199, with at most nine digits of a second."""
    if not times:
        return True
    joined = "\n".join(times)
    if not joined.isascii():
        return False
    raw = joined.encode()
    shapes = raw.translate(_DIGITS_TO_ZERO)
    first = shapes[: len(times[0])]
    if first not in _SHAPES:
        return False
    # Usually all are of one shape, and one comparison sees it.
    same = shapes == (first + b"\n") * (len(times) - 1) + first
    if not same and not _SHAPES.issuperset(shapes.split(b"\n")):
        return False
    earliest, latest = min(times), max(times)
    # A day off either end, where an offset could matter.
    if earliest < "1900-01-02" or latest >= "2199-12-31":
        return False
    if not (same and first[-1] == _Z) and joined.count("Z") != len(times):
        offsets = {time[-6:] for time in times if time[-1] != "Z"}
        if not all(map(_OFFSET.fullmatch, offsets)):
            return False
    if same and earliest[:10] == latest[:10]:
        # Of one day: no hour is beyond that of the latest, so its date and hour vouch for all.
        row = len(first) + 1
        times = [latest]
        if max(raw[14::row]) > _FIVE or max(raw[17::row]) > _FIVE:
            return False
    if any("T24" in time for time in times):
        return False
    try:
        # Only whether there is such a date and time of day: all is parsed again where it is stored.
        deque(map(datetime.fromisoformat, times), 0)
    except ValueError:
        return False
    return True


def _are_texts(events: list[Any]) -> bool:
    """Whether no attribute holds a character that it must not."""
    parts = [part for event in events for part in (event.id, event.type)]
    parts += [event.subject for event in events if event.subject is not UNSET]
    return text_fault("".join(parts)) is None


def _is_all(body: bytes, canonical: bytes, versions: int, size: int, plain: bool) -> bool:
    """Whether the events have no member that is not in the canonical form: a repeated one.

    When nothing is escaped, a body as long as its canonical form has no room for more, not even
    for white space. Else the quotes decide: a member more means two quotes more, and only an
    escaped quote (\\u0022, which becomes \\") could make up for it.
    """
    if plain and len(canonical) + versions * _SPECVERSION == size:
        return True
    return b"\\u0022" not in body and _quotes(canonical) + 4 * versions == _quotes(body)


def _quotes(text: bytes) -> int:
    if len(text) < _SMALL:
        return text.count(b'"')
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == _QUOTE))
