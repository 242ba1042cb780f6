"""The API of usage records over a real gateway, sink and event store."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from aggregator.events import EventService
from aggregator.query import QueryInput
from entitlements.builtin import BuiltIns
from entitlements.usage_records.options import UsageLimits
from ingest.limits import IngestLimits
from ingest.metrics import IngestMetrics
from ingest.service import IngestService
from meterline.kernel.clock import Clock
from meterline.server.kit_usage import UsageKit, UsageParts, running_usage
from meterline.server.usage import MeterUsage
from meterline.server.writing import AggregatorMeters, IngestWriter
from tests.support.api import app_of, client_of
from tests.support.clock import FixedClock
from tests.support.entitled import Entitled, entitled
from tests.support.entitlements import OneNamespace, exact


class EveryTransaction:
    async def is_of(self, namespace: str, transaction_id: str, subject: str) -> bool | None:
        return True


@dataclass
class RealKit:
    http: httpx.AsyncClient
    clock: FixedClock
    base: Entitled
    kit: UsageKit
    events: EventService

    async def call(
        self, method: str, path: str, body: Any = None, status: int = 200, **options: Any
    ) -> Any:
        given: dict[str, Any] = {} if body is None else {"content": json.dumps(body)}
        headers = {"content-type": "application/json"}
        response = await self.http.request(
            method, f"/api/v1{path}", headers=headers, **given, **options
        )
        assert response.status_code == status, response.text
        return exact(response.text)

    async def meter(self, slug: str, **query: Any) -> dict[tuple[str, ...], Any]:
        """A built-in meter's values by its groups."""
        found = await self.base.meters.query("default", slug, QueryInput(**query))
        return {tuple(row.group_by.values()): row.value for row in found.rows}


@asynccontextmanager
async def real_kit(path: Path, clock: FixedClock, **limits: Any) -> AsyncIterator[RealKit]:
    async with entitled(path, [], clock) as base:
        tick: Clock = clock
        ingest = IngestService(base.rig.log, tick, IngestLimits(), IngestMetrics())
        rig = base.rig
        events = EventService(base.meters, rig.sink.registry, rig.engine)
        parts = UsageParts(
            database=rig.database,
            meters=base.meters,
            events=events,
            reader=MeterUsage(base.meters, rig.sink.registry, rig.sink.freshness, rig.engine),
            writer=IngestWriter(ingest),
            builtins=BuiltIns(AggregatorMeters(base.meters), base.features),
            transactions=EveryTransaction(),
            clock=tick,
            limits=UsageLimits(**limits),
        )
        async with running_usage(parts) as kit:
            app = app_of(OneNamespace(), *kit.routers(), max_body=16 << 20)  # type: ignore[arg-type]
            async with client_of(app) as client:
                yield RealKit(client, clock, base, kit, events)
        ingest.close()
