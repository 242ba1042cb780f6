"""What the kit asks of the other services: events written by ingest, meters by the aggregator."""

import asyncio
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

from aggregator.service import MeterService
from entitlements.events import UsageEvent
from ingest.service import IngestService
from meterline.kernel.instants import format_instant
from meterline.kernel.meters import MeterSpec
from meterline.kernel.quantity import format_number
from meterline.web.json import encode

_BATCH = b"application/cloudevents-batch+json"
_READY_SECONDS = 5.0
_LOOK_SECONDS = 0.05


class IngestWriter:
    """An `EventWriter` over the gateway: the same limits and the same log as for everybody."""

    def __init__(self, ingest: IngestService) -> None:
        self._ingest = ingest

    async def write(self, namespace: str, events: Sequence[UsageEvent]) -> None:
        """See `EventWriter.write`."""
        most = self._ingest.limits.max_batch_events
        for first in range(0, len(events), most):
            body = encode([_cloud_event(one) for one in events[first : first + most]])
            await self._ingest.ingest(namespace, (), _BATCH, None, body, own=True)


class AggregatorMeters:
    """A `MeterMaker` over the service of meters."""

    def __init__(self, meters: MeterService) -> None:
        self._meters = meters

    async def ensure(self, namespace: str, specs: Sequence[MeterSpec]) -> None:
        """See `MeterMaker.ensure`.

        A new meter first reads the events that are already there. It is waited for, so that the
        first caller is not sent away, but not for long.
        """
        await self._meters.reconcile(namespace, specs)
        with suppress(TimeoutError):
            async with asyncio.timeout(_READY_SECONDS):
                slugs = {spec.slug for spec in specs}
                while not await self._are_ready(namespace, slugs):  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_SECONDS)

    async def _are_ready(self, namespace: str, slugs: Set[str]) -> bool:
        meters = [one for one in await self._meters.list(namespace) if one.slug in slugs]
        return all(self._meters.status(one).state == "ready" for one in meters)


def _cloud_event(event: UsageEvent) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": format_instant(event.time),
        "datacontenttype": "application/json",
        "data": plain(event.data),
    }


def plain(value: object) -> Any:
    """JSON values: decimals become their text in plain notation, instants RFC 3339."""
    match value:
        case Decimal():
            return format_number(value)
        case datetime():
            return format_instant(value)
        case Mapping():
            return {str(name): plain(item) for name, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return value
