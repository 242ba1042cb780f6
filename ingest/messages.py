"""Which kind of CloudEvents message a request is, and the attributes of a binary one. Pure."""

import re
from collections.abc import Iterable, Sequence
from enum import Enum, auto

from ingest.attributes import is_json
from ingest.faults import Fault
from meterline.kernel.errors import UnsupportedMediaError
from meterline.web.media import parse_media_type

Headers = Sequence[tuple[bytes, bytes]]
"""As ASGI gives them: names in lower case."""


class Mode(Enum):
    """How the events are in the message."""

    STRUCTURED = auto()
    BATCH = auto()
    BINARY = auto()
    LENIENT = auto()
    """`application/json`: one event or an array, `specversion` may be missing."""


ACCEPTED_TYPES = (
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "application/json",
)
_MODES = dict(zip(ACCEPTED_TYPES, (Mode.STRUCTURED, Mode.BATCH, Mode.LENIENT), strict=True))
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii"})
_REQUIRED_HEADERS = frozenset({b"ce-id", b"ce-source", b"ce-type", b"ce-specversion"})
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_QUOTED_PAIR = re.compile(rb"\\(.)", re.DOTALL)
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})?")


def mode_of(content_type: bytes | None, headers: Headers) -> Mode:
    """The mode of an HTTP message; `UnsupportedMediaError` for one that is not read here.

    The content type decides; headers make a message binary only when it is not a CloudEvents type.
    """
    text = (content_type or b"").decode("latin-1")
    media = parse_media_type(text)
    mode = _MODES.get(media.essence) if media else None
    if mode is not Mode.STRUCTURED and mode is not Mode.BATCH:
        if media and media.essence.startswith("application/cloudevents"):
            mode = None
        elif any(name in _REQUIRED_HEADERS for name, _ in headers):
            if media is None or not is_json(text):
                return Mode.BINARY  # the data is kept as it is, whatever its charset
            mode = Mode.BINARY
    if mode is None:
        raise UnsupportedMediaError(
            f"the content type is {text or 'missing'}; this endpoint reads"
            f" {', '.join(ACCEPTED_TYPES)}, and binary mode with ce- headers"
        )
    charset = media.parameters.get("charset", "utf-8") if media else "utf-8"
    if charset.lower() not in _UTF8:
        raise UnsupportedMediaError(f"the charset is {charset}; JSON is read as UTF-8 only")
    return mode


def http_attributes(headers: Headers, faults: list[Fault]) -> dict[str, str]:
    """The attributes in the headers of a binary HTTP message; what is wrong goes to `faults`."""
    pairs = [
        (name[3:].decode("latin-1"), _http_value(value))
        for name, value in headers
        if name.startswith(b"ce-")
    ]
    content_types = [value for name, value in headers if name == b"content-type"]
    return _attributes(pairs, content_types, faults)


def kafka_attributes(headers: Headers, faults: list[Fault]) -> dict[str, str]:
    """The attributes in the headers of a binary Kafka record: UTF-8 as it is."""
    content_types = [value for name, value in headers if name == b"content-type"]
    # Some SDKs write the content type twice, the second time against the specification.
    again = [value for name, value in headers if name == b"ce_datacontenttype"]
    if len(again) == 1 and again == (content_types or again):
        content_types = again
        headers = [header for header in headers if header[0] != b"ce_datacontenttype"]
    pairs = [
        (name[3:].decode("latin-1"), _utf8(value))
        for name, value in headers
        if name.startswith(b"ce_")
    ]
    return _attributes(pairs, content_types, faults)


def _attributes(
    pairs: Iterable[tuple[str, str | Fault]], content_types: list[bytes], faults: list[Fault]
) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for name, value in pairs:
        if name in ("data", "data_base64", "datacontenttype"):
            faults.append(Fault(0, name, "is not an attribute that a header may give"))
        elif name in attributes:
            faults.append(Fault(0, name, "the header is there more than once"))
        elif isinstance(value, Fault):
            faults.append(Fault(0, name, value.reason))
        else:
            attributes[name] = value
    if content_types:
        attributes["datacontenttype"] = content_types[0].decode("latin-1")
    if len(content_types) > 1:
        faults.append(Fault(0, "datacontenttype", "the header is there more than once"))
    return attributes


def _http_value(value: bytes) -> str | Fault:
    """A header's value: quotes taken off, then one round of percent-decoding, then UTF-8."""
    if value.startswith(b'"'):
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:
            return Fault(0, None, "the header begins a quoted string and does not end it")
        value = _QUOTED_PAIR.sub(rb"\1", quoted[1])
    if b"%" in value:
        if any(match[1] is None for match in _PERCENT.finditer(value)):
            return Fault(0, None, "a percent sign must be followed by two hexadecimal digits")
        value = _PERCENT.sub(lambda match: bytes((int(match[1], 16),)), value)
    return _utf8(value)


def _utf8(value: bytes) -> str | Fault:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return Fault(0, None, "the header is not UTF-8")
