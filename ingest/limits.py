"""Every bound of the ingest endpoint, with its default. Settings fill this in `assembly`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IngestLimits:
    """What one request and one event may hold.

    A request beyond a size limit gets 413, an event beyond the others is an error of that event.
    """

    require_subject: bool = True
    """Whether an event without `subject` is refused: usage that belongs to nobody."""

    max_body_bytes: int = 16 * 1024 * 1024
    """Bytes of a request body as sent."""

    max_decompressed_bytes: int = 64 * 1024 * 1024
    """Bytes of a gzip or zstd body once decompressed."""

    max_batch_events: int = 10_000
    """Events in one request."""

    max_depth: int = 128
    """Arrays and objects within one another in `data`; `data` itself is level 1."""

    max_members: int = 10_000
    """Object members and array elements in one event's `data`, over all levels."""

    max_number_digits: int = 256
    """Characters of one JSON number."""

    max_attribute_length: int = 2_048
    """Characters of the value of an attribute."""

    max_attribute_name_length: int = 64
    """Characters of the name of an extension attribute; the specification advises 20."""

    max_extensions: int = 64
    """Extension attributes of one event."""

    max_reported_errors: int = 100
    """Bad events listed in one answer; the answer says how many there are in all."""

    max_buffered_bytes: int = 256 * 1024 * 1024
    """Request bodies held in memory at a time, over all requests; beyond it, 503."""

    body_timeout_seconds: float = 30.0
    """How long a client may take to send its body."""
