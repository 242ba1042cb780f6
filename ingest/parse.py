"""Bytes of a message in, canonical events out, or an error that tells all that is wrong. Pure.

The canonical event is a compact JSON object with each member at most once: `id`, `source`,
`type`, `subject`, `time`, `datacontenttype`; the data as `data` (a JSON object, byte for byte),
`_raw` (a string that holds the JSON text of any other data) or `data_base64`; and `_ext`, an
object of the other attributes. What was not given is not there.
"""

from collections.abc import Sequence

from ingest.attributes import callers_source_fault, uri_reference_fault
from ingest.exact import ExactReader
from ingest.fast import FastReader
from ingest.faults import Accepted, Fault
from ingest.limits import IngestLimits
from ingest.messages import Headers, Mode, http_attributes, kafka_attributes, mode_of

_REMEMBERED_TYPES = 256


class Parser:
    """Reads messages within limits. Holds caches only, so threads may share it.

    `callers`: the messages are of callers, who may not write events of this server.
    """

    def __init__(self, limits: IngestLimits, *, callers: bool = False) -> None:
        source_fault = callers_source_fault if callers else uri_reference_fault
        self._fast = FastReader(limits, source_fault)
        self._exact = ExactReader(limits, source_fault)
        self._modes: dict[bytes | None, Mode] = {}

    def parse(self, headers: Headers, content_type: bytes | None, body: bytes) -> Accepted:
        """The events of an HTTP request, its body decoded. `content_type` is that header's value.

        Raises `InvalidEventsError`, `UnsupportedMediaError` or `PayloadTooLargeError`.
        """
        mode = self._modes.get(content_type) or self._mode(headers, content_type)
        if mode is Mode.BINARY:
            faults: list[Fault] = []
            return self._exact.from_attributes(http_attributes(headers, faults), body, faults)
        return self._parse_json(mode, body)

    def parse_kafka(
        self, headers: Sequence[tuple[str, bytes]], key: bytes | None, value: bytes | None
    ) -> Accepted:
        """The event of a Kafka record, structured or binary. The key is no part of it."""
        named = [(name.encode(), text) for name, text in headers]
        content_type = next((text for name, text in named if name == b"content-type"), None)
        if content_type is not None and content_type[:23].lower() == b"application/cloudevents":
            mode = mode_of(content_type, ())
            if mode is Mode.BATCH:
                raise self._exact.body_error("a Kafka record holds one event, not a batch")
            return self._parse_json(mode, value or b"")
        faults: list[Fault] = []
        return self._exact.from_attributes(kafka_attributes(named, faults), value, faults)

    def _parse_json(self, mode: Mode, body: bytes) -> Accepted:
        lenient = mode is Mode.LENIENT
        batch = mode is Mode.BATCH or (lenient and body.lstrip(b" \t\r\n")[:1] == b"[")
        accepted = self._fast.read(body, batch=batch, lenient=lenient)
        return accepted or self._exact.read(body, batch=batch, lenient=lenient)

    def _mode(self, headers: Headers, content_type: bytes | None) -> Mode:
        mode = mode_of(content_type, headers)
        # Only what the content type alone decides can be remembered by it.
        if mode in (Mode.STRUCTURED, Mode.BATCH) and len(self._modes) < _REMEMBERED_TYPES:
            self._modes[content_type] = mode
        return mode
