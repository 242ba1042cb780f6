"""The ingest endpoint without a server: one call, one answer."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ingest.api import IngestEndpoint
from ingest.limits import IngestLimits
from ingest.metrics import IngestMetrics
from ingest.service import IngestService
from meterline.eventlog.memory import MemoryLog
from meterline.eventlog.port import EventLog
from meterline.kernel.errors import UnauthorizedError
from meterline.web.asgi import Message
from meterline.web.auth import Principal
from tests.ingest.messages import STRUCTURED

NOW = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)
KEYS = {
    None: Principal("default", frozenset({"admin"})),
    "Bearer sender": Principal("tenant", frozenset({"ingest"})),
    "Bearer reader": Principal("tenant", frozenset({"read"})),
}


class FixedKeys:
    """Authenticates by a table."""

    async def authenticate(self, authorization: str | None) -> Principal:
        if authorization not in KEYS:
            raise UnauthorizedError("unknown key")
        return KEYS[authorization]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    def problem(self) -> dict[str, Any]:
        assert self.headers[b"content-type"] == b"application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        return found


class Api:
    """An endpoint with a log and metrics that tests can look into."""

    def __init__(self, limits: IngestLimits | None = None, log: EventLog | None = None) -> None:
        self.log = log or MemoryLog()
        self.metrics = IngestMetrics()
        self.service = IngestService(self.log, lambda: NOW, limits or IngestLimits(), self.metrics)
        self.endpoint = IngestEndpoint(self.service, FixedKeys())

    async def post(
        self,
        body: bytes | Iterable[Message],
        content_type: bytes | None = STRUCTURED,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> Answer:
        """Send a body, whole or as the ASGI messages it arrives in."""
        sent = list(headers)
        if content_type is not None:
            sent.append((b"content-type", content_type))
        return await self.call(
            sent, [{"type": "http.request", "body": body}] if isinstance(body, bytes) else body
        )

    async def call(
        self, headers: Sequence[tuple[bytes, bytes]], messages: Iterable[Message]
    ) -> Answer:
        """One request."""
        scope = {"type": "http", "method": "POST", "path": "/api/v1/events", "headers": headers}
        arriving = iter(messages)
        sent: list[Message] = []

        async def receive() -> Message:
            message = next(arriving)
            waited = message.get("wait")
            if waited is not None:
                await waited
            return message

        async def send(message: Message) -> None:
            sent.append(message)

        await self.endpoint(scope, receive, send)
        if not sent:
            return Answer(0, {}, b"")
        start, *parts = sent
        return Answer(
            start["status"],
            dict(start["headers"]),
            b"".join(part.get("body", b"") for part in parts),
        )

    async def stored(self) -> list[dict[str, Any]]:
        """The events in the log."""
        records = await self.log.read(0, 0, 10**9)
        return [event for record in records for event in json.loads(record.events)]
