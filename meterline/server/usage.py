"""What entitlements ask of meters, answered by the aggregator."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.following import Rejections, Settling
from aggregator.freshness import Freshness
from aggregator.registry import SeriesRegistry
from aggregator.rows import Statement
from aggregator.service import MeterService
from aggregator.spans import SpanQuery, plan_instants, plan_spans, read_spans
from aggregator.stores import series as stored
from aggregator.stores import state
from aggregator.stores.engine import Engine, EngineError
from entitlements.holds import store as hold_store
from entitlements.holds.settling import prepared
from entitlements.stores import following
from entitlements.stores.live import Due, Tracking
from entitlements.usage import UsageQuery
from meterline.kernel.errors import NotFoundError, UnavailableError
from meterline.kernel.instants import LATEST
from meterline.kernel.meters import Aggregation, Meter
from meterline.kernel.periods import Period
from meterline.kernel.usage import Usage


class MeterUsage:
    """What balances ask of meters (`UsageReader`), and what live rows do (`TrackedUsage`)."""

    def __init__(
        self,
        meters: MeterService,
        registry: SeriesRegistry,
        freshness: Freshness,
        engine: Engine,
    ) -> None:
        self._meters = meters
        self._registry = registry
        self._freshness = freshness
        self._engine = engine

    async def read(self, query: UsageQuery, spans: Sequence[Period]) -> Sequence[Decimal | None]:
        """See `UsageReader.read`."""
        return await self._read(query, spans, None)

    async def read_through(
        self, query: UsageQuery, spans: Sequence[Period], through: Mapping[int, int]
    ) -> Sequence[Decimal | None]:
        """See `TrackedUsage.read_through`."""
        return await self._read(query, spans, through)

    async def _read(
        self, query: UsageQuery, spans: Sequence[Period], through: Mapping[int, int] | None
    ) -> Sequence[Decimal | None]:
        if not spans:
            return ()
        meter = await self._meters.get(query.namespace, query.meter_slug)
        pairs = [(span.start, span.end) for span in spans]
        asked = SpanQuery(query.subject, query.filters, pairs, through)
        statement = plan_spans(meter, await self._registry.get(meter), asked)
        rows = await self._rows(statement)
        return read_spans([(row[0], row[1]) for row in rows], len(spans))

    async def _rows(self, statement: Statement) -> Sequence[tuple[Any, ...]]:
        try:
            return await self._engine.query(statement.sql, statement.params)
        except EngineError as error:
            raise UnavailableError("the event store could not say what was used") from error

    async def due(
        self, query: UsageQuery, now: datetime, through: Mapping[int, int]
    ) -> Sequence[Due]:
        """See `TrackedUsage.due`."""
        meter = await self._meters.get(query.namespace, query.meter_slug)
        asked = SpanQuery(query.subject, query.filters, [(now, LATEST)], through)
        statement = plan_instants(meter, await self._registry.get(meter), asked)
        rows = await self._rows(statement)
        return [(row[0], Decimal(row[1])) for row in rows]

    async def track(self, query: UsageQuery, since: datetime) -> Tracking | None:
        """See `TrackedUsage.track`."""
        meter = await self._meters.get(query.namespace, query.meter_slug)
        series = await self._registry.get(meter)
        if series.state != "ready":
            return None
        filters = tuple(
            (series.group_paths.index(meter.group_by[key]), tuple(texts))
            for key, texts in sorted(query.filters.items())
        )
        counts = meter.aggregation is Aggregation.COUNT
        begin = max(since, meter.event_from) if meter.event_from else since
        return Tracking(series.id, counts, filters, begin)

    def is_tracked(self, series: int) -> bool:
        """See `TrackedUsage.is_tracked`."""
        return self._registry.has(series)

    async def as_of(self) -> datetime:
        """See `UsageReader.as_of`."""
        return await self._freshness.visible_until()

    async def wait(self, timeout_seconds: float) -> None:
        """See `UsageReader.wait`."""
        if not await self._freshness.wait_visible(timeout_seconds):
            raise UnavailableError(
                f"acknowledged events are not visible after {timeout_seconds:g} s"
            )

    async def meter(self, namespace: str, slug: str) -> Meter | None:
        """See `UsageReader.meter`."""
        try:
            return await self._meters.get(namespace, slug)
        except NotFoundError:
            return None

    async def positions(self, conn: AsyncConnection) -> Mapping[int, int]:
        """See `TrackedUsage.positions`."""
        return await state.load_positions(conn)

    async def hold(self, conn: AsyncConnection, series: int) -> Mapping[int, int] | None:
        """See `TrackedUsage.hold`."""
        # A series that is dropped gets no more usage; in this transaction it stays, or is gone.
        if not await stored.series_is_live(conn, series):
            return None
        parts = state.sink_partitions
        # In order, so that two who hold them do not wait for each other; shared: both may.
        held = sa.select(parts.c.part, parts.c.position).order_by(parts.c.part)
        found = await conn.execute(held.with_for_update(read=True))
        return {row.part: row.position for row in found}


class LiveFollower:
    """Follows the sink, and moves live rows on with each of its steps."""

    async def series(self, conn: AsyncConnection) -> Collection[int]:
        """See `Follower.series`."""
        return await following.tracked_series(conn)

    async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
        """See `Follower.apply`."""
        await following.apply(conn, usages)

    async def settling(self, conn: AsyncConnection, events: Sequence[tuple[str, str]]) -> Settling:
        """See `Follower.settling`."""
        return await prepared(conn, events)

    async def rejected(self, conn: AsyncConnection, read: Rejections) -> None:
        """See `Follower.rejected`."""

    async def erase(self, conn: AsyncConnection, namespace: str, subject: str) -> None:
        """See `Follower.erase`."""
        await following.forget_subject(conn, namespace, subject)
        await hold_store.erase(conn, namespace, subject)
