"""The kit for AI products in a server: what records and prices usage.

Each part says in its own module what it is made of (`kit_usage.py`, …); here they are put together.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import APIRouter

from aggregator.events import EventService
from entitlements.builtin import BuiltIns
from entitlements.usage_records.options import UsageLimits
from ingest.service import IngestService
from meterline.kernel.clock import Clock
from meterline.server.app import HotRoute
from meterline.server.balances import Balances
from meterline.server.kit_usage import NoTransactions, UsageParts, running_usage
from meterline.server.metering import Metering
from meterline.server.settings import Settings
from meterline.server.stores import Stores
from meterline.server.writing import AggregatorMeters, IngestWriter
from meterline.web.asgi import ASGIApp
from meterline.web.auth import Authenticator

Erase = Callable[[str, str], Awaitable[None]]
"""Forgets a subject of a namespace."""


@dataclass(frozen=True, slots=True)
class KitParts:
    """What the kit is made of."""

    settings: Settings
    stores: Stores
    metering: Metering
    balances: Balances
    ingest: IngestService
    authenticator: Authenticator
    clock: Clock


@dataclass(frozen=True, slots=True)
class Kit:
    """What the kit shows. Its routers come before those of subjects, whose paths match some."""

    routers: list[APIRouter] = field(default_factory=list)
    hot_routes: list[HotRoute] = field(default_factory=list)
    shortcuts: list[Callable[[ASGIApp], ASGIApp]] = field(default_factory=list)
    erasers: list[Erase] = field(default_factory=list)

    async def erase(self, namespace: str, subject: str) -> None:
        """Forget what the kit knows of a subject, beside its events."""
        for eraser in self.erasers:
            await eraser(namespace, subject)


@asynccontextmanager
async def running_kit(parts: KitParts) -> AsyncIterator[Kit]:
    """The kit, with what it does in the background, until the block ends."""
    settings, stores, metering = parts.settings, parts.stores, parts.metering
    built_ins = BuiltIns(AggregatorMeters(metering.meters), parts.balances.services.features)
    usage_parts = UsageParts(
        database=stores.database,
        meters=metering.meters,
        events=EventService(metering.meters, metering.registry, stores.store.queries),
        reader=metering.usage,
        writer=IngestWriter(parts.ingest),
        builtins=built_ins,
        transactions=NoTransactions(),
        clock=parts.clock,
        limits=UsageLimits(**settings.usage.model_dump()),
    )
    async with running_usage(usage_parts) as usage:
        yield Kit(routers=usage.routers())
