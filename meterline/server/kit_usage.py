"""The part that records and prices usage, over the meters and the gateway."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from fastapi import APIRouter

from aggregator.events import EventFilter, EventService, ListedEvent
from aggregator.query import QueryInput, TimeRange
from aggregator.service import MeterService
from entitlements.builtin import USAGE_SOURCE, USAGE_TYPE, BuiltIns
from entitlements.events import EventWriter
from entitlements.holds.model import Face
from entitlements.holds.service import HoldService
from entitlements.usage import UsageReader
from entitlements.usage_records.api import price_routes, routes
from entitlements.usage_records.model import Listed, Position, RecordFilter, UsageRecord
from entitlements.usage_records.naming import Names
from entitlements.usage_records.options import UsageLimits
from entitlements.usage_records.ports import TotalsQuery, Transactions
from entitlements.usage_records.prices import PriceService
from entitlements.usage_records.service import UsageMeans, UsageService
from entitlements.usage_records.stores import names as names_store
from entitlements.usage_records.summary import SummaryService
from meterline.db.engine import Database
from meterline.kernel.clock import Clock
from meterline.kernel.instants import format_instant, parse_instant


@dataclass(frozen=True, slots=True)
class UsageKit:
    """What records and prices usage. Append to `usage.on_recorded` to be told of each record."""

    usage: UsageService
    prices: PriceService
    summaries: SummaryService
    database: Database
    clock: Clock

    async def erase(self, namespace: str, subject: str) -> None:
        """Forget what is kept of a subject beside its events."""
        async with self.database.transaction() as conn:
            await names_store.erase(conn, namespace, subject)

    def routers(self) -> list[APIRouter]:
        """Its endpoints."""
        return [
            routes.router(self.usage, self.summaries),
            price_routes.router(self.prices, self.clock),
        ]


@dataclass(frozen=True, slots=True)
class UsageParts:
    """What it is made of. `reader` is the one of balances."""

    database: Database
    meters: MeterService
    events: EventService
    reader: UsageReader
    writer: EventWriter
    builtins: BuiltIns
    transactions: Transactions
    clock: Clock
    limits: UsageLimits


class HeldTransactions:
    """`Transactions` over the service of holds: transactions and reservations are holds."""

    def __init__(self, holds: HoldService) -> None:
        self._holds = holds

    async def is_of(self, namespace: str, transaction_id: str, subject: str) -> bool | None:
        """See `Transactions.is_of`."""
        hold = await self._holds.find(namespace, transaction_id)
        if hold is None or hold.opening.face is Face.HOLD:
            return None
        return hold.opening.place.subject == subject


@asynccontextmanager
async def running_usage(parts: UsageParts) -> AsyncIterator[UsageKit]:
    """The services; what waits is kept when the block ends."""
    meters = AggregatedUsage(parts.meters, parts.reader)
    prices = PriceService(parts.database, parts.clock, parts.limits)
    names = Names(parts.database, parts.clock, parts.limits)
    usage = UsageService(
        UsageMeans(
            prices=prices,
            builtins=parts.builtins,
            writer=parts.writer,
            transactions=parts.transactions,
            records=StoredRecords(parts.events),
            meters=meters,
            names=names,
            clock=parts.clock,
        )
    )
    try:
        yield UsageKit(usage, prices, SummaryService(meters), parts.database, parts.clock)
    finally:
        await names.close()


class StoredRecords:
    """A `RecordReader` over the stored events."""

    def __init__(self, events: EventService) -> None:
        self._events = events

    async def list(self, namespace: str, wanted: RecordFilter, limit: int) -> Sequence[Listed]:
        """See `RecordReader.list`."""
        at = wanted.before
        place = None if at is None else (at.micros, at.part, at.offset, at.index)
        asked = EventFilter(
            times=TimeRange(wanted.begin, wanted.end),
            subject=wanted.subject,
            type=USAGE_TYPE,
            source=USAGE_SOURCE,
            before=place,
            data=wanted.data,
            counted=True,
        )
        return [_listed(one) for one in await self._events.list(namespace, asked, limit)]


class AggregatedUsage:
    """`FreshMeters` over the service of meters."""

    def __init__(self, meters: MeterService, reader: UsageReader) -> None:
        self._meters = meters
        self._reader = reader

    async def totals(
        self, namespace: str, slug: str, query: TotalsQuery
    ) -> Sequence[tuple[Mapping[str, str], Decimal]]:
        """See `UsageMeters.totals`."""
        asked = QueryInput(
            begin=_text(query.begin),
            end=_text(query.end),
            subjects=() if query.subject is None else (query.subject,),
            group_by=query.groups,
            filters=query.filters,
        )
        found = await self._meters.query(namespace, slug, asked)
        return [(row.group_by, row.value) for row in found.rows]

    async def as_of(self) -> datetime:
        """See `FreshMeters.as_of`."""
        return await self._reader.as_of()

    async def wait(self, timeout_seconds: float) -> None:
        """See `UsageMeters.wait`."""
        await self._reader.wait(timeout_seconds)


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else format_instant(instant)


def _listed(one: ListedEvent) -> Listed:
    event: Mapping[str, Any] = msgspec.json.decode(one.event)
    record = UsageRecord(
        id=event["id"],
        subject=event.get("subject", ""),
        time=parse_instant(event["time"]),
        data=event.get("data") or {},
    )
    return Listed(Position(*one.position), record)
