"""Messages for tests."""

import json
from typing import Any

from ingest.faults import Accepted, Fault, InvalidEventsError
from ingest.limits import IngestLimits
from ingest.parse import Parser

STRUCTURED = b"application/cloudevents+json"
BATCH = b"application/cloudevents-batch+json"
PLAIN = b"application/json"
LIMITS = IngestLimits()


def event(**changes: Any) -> dict[str, Any]:
    """A good event, with members changed, added, or (None) left out."""
    base = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "c"}
    return {name: value for name, value in {**base, **changes}.items() if value is not None}


def dump(value: Any) -> bytes:
    """Compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


def parse(body: bytes, content_type: bytes = STRUCTURED, limits: IngestLimits = LIMITS) -> Accepted:
    """What a parser of its own makes of a body."""
    return Parser(limits).parse([(b"content-type", content_type)], content_type, body)


def parse_one(body: bytes, content_type: bytes = STRUCTURED) -> Any:
    """The canonical event of a body that holds one."""
    [found] = json.loads(parse(body, content_type).events)
    return found


def faults_of(
    body: bytes, content_type: bytes = STRUCTURED, limits: IngestLimits = LIMITS
) -> list[Fault]:
    """The faults for which a body is refused; [] when it is accepted."""
    try:
        parse(body, content_type, limits)
    except InvalidEventsError as error:
        return list(error.faults)
    return []
