"""The exact reader: any event, one by one, with every fault told, or its canonical form. Pure.

It takes whatever the fast reader hesitates about, so it decides alone what is accepted.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping

import msgspec

from ingest.attributes import (
    SourceFault,
    absolute_uri_fault,
    base64_fault,
    integer_of,
    is_json,
    media_type_fault,
    name_fault,
    read_time,
    text_fault,
    uri_reference_fault,
)
from ingest.bounds import count_members, data_fault, free_size
from ingest.faults import Accepted, Fault, InvalidEventsError
from ingest.limits import IngestLimits
from meterline.kernel.errors import PayloadTooLargeError

_TEXT = ("id", "source", "type", "subject", "time", "datacontenttype")
_PREFIX = {name: f'"{name}":'.encode() for name in _TEXT}
_SPECIFIED = frozenset({*_TEXT, "specversion", "dataschema", "data", "data_base64"})
# Over everything that is whole: plain text, other escapes, pairs. What then follows is a half.
_HALF_PAIR = re.compile(
    rb"(?:[^\\]++|\\(?!u[dD][89a-fA-F]).|\\u[dD][89abAB]..\\u[dD][c-fC-F]..)*+(\\u)", re.DOTALL
)
_decode_batch = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_event = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode

JSON_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on bytes that are not the JSON it looks for."""


class ExactReader:
    """Reads JSON events one by one."""

    def __init__(
        self, limits: IngestLimits, source_fault: SourceFault = uri_reference_fault
    ) -> None:
        self._limits = limits
        self._source_fault = source_fault
        self._free_size = free_size(limits)

    def read(self, body: bytes, *, batch: bool, lenient: bool) -> Accepted:
        """The events of a body that is an array (`batch`) or one event.

        `lenient` bodies may leave out `specversion`. Raises `InvalidEventsError`.
        """
        faults: list[Fault] = []
        try:
            events = [
                self._event(raw, index, lenient, faults)
                for index, raw in enumerate(self._split(body, batch))
            ]
        except RecursionError:
            raise self.body_error("the JSON is nested too deeply") from None
        if faults:
            raise self.error(faults)
        return Accepted(len(events), b"[" + b",".join(events) + b"]")

    def from_attributes(
        self, attributes: Mapping[str, str], data: bytes | None, faults: list[Fault]
    ) -> Accepted:
        """The one event of a binary message: its attributes as texts, its data as sent.

        `faults` are those found in the headers already.
        """
        members: dict[str, bytes] = {name: _encode(text) for name, text in attributes.items()}
        if data:
            self._add_binary_data(members, attributes.get("datacontenttype"), data, faults)
        found: list[Fault] = []
        event = self._canonical(members, 0, False, found)
        known = {fault.attribute for fault in faults}
        faults += [fault for fault in found if fault.attribute not in known]
        if faults:
            raise self.error(faults)
        return Accepted(1, b"[" + event + b"]")

    def error(self, faults: list[Fault]) -> InvalidEventsError:
        """The error that tells these faults."""
        reason = "invalid_json" if faults[0].index is None else "invalid_event"
        return InvalidEventsError(faults, reason=reason, shown=self._limits.max_reported_errors)

    def body_error(self, reason: str) -> InvalidEventsError:
        """The error of a body as a whole."""
        return self.error([Fault(None, None, reason)])

    def _split(self, body: bytes, batch: bool) -> list[msgspec.Raw]:
        self._check_text(body)
        try:
            if not batch:
                return [_decode_raw(body)]
            raws = _decode_batch(body)
        except RecursionError:
            raise self.body_error("the JSON is nested too deeply") from None
        except JSON_ERRORS as error:
            raise self.body_error(f"the body is not the JSON expected: {error}") from None
        if len(raws) > self._limits.max_batch_events:
            raise PayloadTooLargeError(
                f"the batch has {len(raws)} events; at most {self._limits.max_batch_events}",
                extensions={"maxBatchEvents": self._limits.max_batch_events},
            )
        return raws

    def _check_text(self, body: bytes) -> None:
        if body.startswith(b"\xef\xbb\xbf"):
            raise self.body_error("the body begins with a byte order mark")
        if not body.strip(b" \t\r\n"):
            raise self.body_error("the body is empty")
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise self.body_error(f"the body is not UTF-8 at byte {error.start}") from None
        if b"\\u" in body and (match := _HALF_PAIR.match(body)):
            raise self.body_error(f"half of a surrogate pair at byte {match.start(1)}")

    def _event(self, raw: msgspec.Raw, index: int, lenient: bool, faults: list[Fault]) -> bytes:
        text = bytes(raw)
        if text[:1] != b"{":
            faults.append(Fault(index, None, "an event must be a JSON object"))
            return b""
        try:
            members = {name: bytes(value) for name, value in _decode_event(text).items()}
        except JSON_ERRORS as error:
            faults.append(Fault(index, None, f"the event is not valid JSON: {error}"))
            return b""
        at_most = self._limits.max_members + self._limits.max_extensions + len(_SPECIFIED)
        if len(members) > at_most or (len(text) > 2 * at_most and count_members(text) > at_most):
            faults.append(Fault(index, None, "the event has too many members"))
            return b""
        for name in _repeated(text, members):
            faults.append(Fault(index, name, "the member is there more than once"))
        return self._canonical(members, index, lenient, faults)

    def _canonical(
        self, members: dict[str, bytes], index: int, lenient: bool, faults: list[Fault]
    ) -> bytes:
        """The canonical object; what is wrong goes to `faults`."""
        parts: list[bytes] = []
        present = members
        if b"null" in members.values():
            # It is the same as not there, but for data, where it is a value.
            present = {
                name: raw
                for name, raw in members.items()
                if raw != b"null" or name in ("data", "data_base64")
            }
        for name, missing in self._missing(present, lenient):
            faults.append(Fault(index, name, missing))
        for name in _TEXT:
            if name in present:
                text, fault = self._text(name, present[name])
                if fault is not None:
                    faults.append(Fault(index, name, fault))
                parts.append(_PREFIX[name] + _encode(text))
        extensions = [b'"%b":%b' % item for item in self._extensions(present, index, faults)]
        parts += self._data(present, index, faults)
        if extensions:
            parts.append(b'"_ext":{' + b",".join(extensions) + b"}")
        return b"{" + b",".join(parts) + b"}"

    def _missing(self, present: Mapping[str, bytes], lenient: bool) -> Iterator[tuple[str, str]]:
        version = present.get("specversion")
        if version is None:
            if not lenient:
                yield "specversion", "is missing"
        elif version != b'"1.0"' and (version[:1] != b'"' or _decode_text(version) != "1.0"):
            yield "specversion", 'must be "1.0"'
        for name in ("id", "source", "type"):
            if name not in present:
                yield name, "is missing"
        if self._limits.require_subject and "subject" not in present:
            yield "subject", "is missing: usage belongs to a subject"

    def _text(self, name: str, raw: bytes) -> tuple[str, str | None]:
        """An attribute's text as it is kept, and its fault."""
        if raw[:1] != b'"':
            return "", "must be a string"
        text = _decode_text(raw)
        if not text:
            return "", "must not be empty"
        fault = self._string_fault(text)
        if fault is None:
            if name == "time":
                return read_time(text)
            if name == "source":
                fault = self._source_fault(text)
            elif name == "datacontenttype":
                fault = media_type_fault(text)
        return text, fault

    def _string_fault(self, text: str) -> str | None:
        if len(text) > self._limits.max_attribute_length:
            return f"has more than {self._limits.max_attribute_length} characters"
        return text_fault(text)

    def _extensions(
        self, present: Mapping[str, bytes], index: int, faults: list[Fault]
    ) -> Iterator[tuple[bytes, bytes]]:
        """Name and value of what has no place of its own: extensions, and `dataschema`."""
        count = 0
        for name, raw in present.items():
            if name in _SPECIFIED and name != "dataschema":
                continue
            count += name != "dataschema"
            if count > self._limits.max_extensions:
                faults.append(Fault(index, None, f"the event has more than {count - 1} extensions"))
                return
            fault = name_fault(name, self._limits.max_attribute_name_length)
            if fault is None and raw[:1] == b'"':
                text = _decode_text(raw)
                fault = self._string_fault(text)
                if fault is None and name == "dataschema":
                    fault = absolute_uri_fault(text)
                raw = _encode(text)
            elif fault is None and (name == "dataschema" or raw not in (b"true", b"false")):
                number = None if name == "dataschema" else integer_of(raw.decode())
                if number is None:
                    fault = "must be a string" if name == "dataschema" else _EXTENSION_TYPES
                else:
                    raw = b"%d" % number
            if fault is not None:
                faults.append(Fault(index, _shown(name), fault))
            yield name.encode(), raw

    def _data(
        self, present: Mapping[str, bytes], index: int, faults: list[Fault]
    ) -> Iterator[bytes]:
        data, encoded = present.get("data"), present.get("data_base64")
        if data is not None and encoded is not None:
            faults.append(Fault(index, "data_base64", "data and data_base64 exclude each other"))
        elif encoded is not None:
            text = _decode_text(encoded) if encoded[:1] == b'"' else None
            fault = "must be a string" if text is None else base64_fault(text)
            if fault is not None:
                faults.append(Fault(index, "data_base64", fault))
            yield b'"data_base64":' + _encode(text)
        elif data is not None:
            fault = data_fault(data, self._limits) if len(data) >= self._free_size else None
            kind = present.get("datacontenttype", b"")
            if fault is None and data[:1] != b'"' and kind[:1] == b'"':
                content_type = _decode_text(kind)
                if media_type_fault(content_type) is None and not is_json(content_type):
                    fault = f"must be a string, or data_base64, for {content_type}"
            if fault is not None:
                faults.append(Fault(index, "data", fault))
            yield b'"data":' + data if data[:1] == b"{" else b'"_raw":' + _encode(data.decode())

    def _add_binary_data(
        self,
        members: dict[str, bytes],
        content_type: str | None,
        data: bytes,
        faults: list[Fault],
    ) -> None:
        if content_type is not None and is_json(content_type):
            try:
                self._check_text(data)
                members["data"] = bytes(_decode_raw(data)).strip(b" \t\r\n")
            except InvalidEventsError as error:
                faults.append(Fault(0, "data", error.faults[0].reason))
            except JSON_ERRORS as error:
                faults.append(Fault(0, "data", f"is not valid JSON: {error}"))
            return
        if content_type is not None and content_type.lower().startswith("text/"):
            try:
                members["data"] = _encode(data.decode())
                return
            except UnicodeDecodeError:
                pass
        members["data_base64"] = b'"' + b64encode(data) + b'"'


_EXTENSION_TYPES = "must be a string, true, false, or an integer of 32 bits"


def _shown(name: str) -> str:
    return name if len(name) <= 64 else name[:64] + "..."


def _repeated(text: bytes, members: Mapping[str, bytes]) -> list[str]:
    """Names of members that an event has more than once; JSON readers would keep one of them."""
    # A member more means two quotes more; only a quote spelled \u0022 could make up for it.
    quotes = 2 * len(members) + sum([raw.count(b'"') for raw in members.values()])
    if quotes == text.count(b'"') and b"\\u0022" not in text:
        return []
    pairs: list[tuple[str, object]] = json.JSONDecoder(
        object_pairs_hook=_Pairs, parse_int=str, parse_float=str
    ).decode(text.decode())
    seen: set[str] = set()
    repeated: dict[str, None] = {}
    for name, _ in pairs:
        if name in seen:
            repeated[name] = None
        seen.add(name)
    return [_shown(name) for name in repeated]


class _Pairs(list[tuple[str, object]]):
    """A JSON object as the pairs it was written with."""
