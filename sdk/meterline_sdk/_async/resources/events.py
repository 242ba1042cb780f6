"""Sending events, and seeing what was stored."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from meterline_sdk import _json
from meterline_sdk._async._resource import AsyncResource
from meterline_sdk._request import Request
from meterline_sdk.models import Page, StoredEvent

BATCH = "application/cloudevents-batch+json"


class AsyncEvents(AsyncResource):
    """`/api/v1/events`."""

    async def ingest(self, events: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Send events (see `meterline_sdk.event`); they are durable when this returns.

        All are accepted or none. Sending the same again changes nothing, so retries are safe.
        """
        batch = [events] if isinstance(events, Mapping) else list(events)
        if batch:
            content = _json.dumps(batch)
            request = Request("POST", "/api/v1/events", {}, content, {"content-type": BATCH})
            await self._transport.send(request)

    async def list(
        self,
        *,
        from_: datetime | None = None,
        to: datetime | None = None,
        ingested_at_from: datetime | None = None,
        ingested_at_to: datetime | None = None,
        subject: str | None = None,
        type: str | None = None,
        source: str | None = None,
        id: str | None = None,
        has_error: bool | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Page[StoredEvent]:
        """Stored events, newest first."""
        return await self._page(
            StoredEvent,
            "/api/v1/events",
            from_=from_,
            to=to,
            ingested_at_from=ingested_at_from,
            ingested_at_to=ingested_at_to,
            subject=subject,
            type=type,
            source=source,
            id=id,
            has_error=has_error,
            limit=limit,
            cursor=cursor,
        )
