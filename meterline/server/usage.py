"""What entitlements ask of meters, answered by the aggregator."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.registry import SeriesRegistry
from aggregator.service import MeterService
from aggregator.sink import Sink
from aggregator.spans import SpanQuery, plan_instants, plan_spans, read_spans
from aggregator.stores import state
from aggregator.stores.engine import Engine
from entitlements.services.live import Metered
from entitlements.stores import live
from entitlements.stores.live import Due, Tracking
from entitlements.usage import UsageQuery
from meterline.kernel.errors import NotFoundError, UnavailableError
from meterline.kernel.meters import Aggregation, Meter
from meterline.kernel.periods import Period
from meterline.kernel.usage import Usage

_MAX_DUE = 1_000
_FAR = timedelta(days=366 * 200)


class MeterUsageReader:
    """`UsageReader`: what balances ask of meters, from the event store."""

    def __init__(
        self, meters: MeterService, sink: Sink, engine: Engine, registry: SeriesRegistry
    ) -> None:
        self._meters = meters
        self._sink = sink
        self._engine = engine
        self._registry = registry

    async def read(self, query: UsageQuery, spans: Sequence[Period]) -> Sequence[Decimal | None]:
        """See `UsageReader.read`."""
        meter = await self._meters.get(query.namespace, query.meter_slug)
        return await _read(
            self._engine, self._registry, meter, query.subject, query.filters, spans, None
        )

    async def as_of(self) -> datetime:
        """See `UsageReader.as_of`."""
        return await self._sink.visible_until()

    async def wait(self, timeout_seconds: float) -> None:
        """See `UsageReader.wait`."""
        if not await self._sink.wait_visible(timeout_seconds):
            raise UnavailableError(
                f"acknowledged events are not visible after {timeout_seconds:g} s"
            )

    async def meter(self, namespace: str, slug: str) -> Meter | None:
        """See `UsageReader.meter`."""
        try:
            return await self._meters.get(namespace, slug)
        except NotFoundError:
            return None


class MeteredUsage:
    """`TrackedUsage` over the sink's series, and the sink's follower that keeps live rows true."""

    def __init__(self, engine: Engine, registry: SeriesRegistry) -> None:
        self._engine = engine
        self._registry = registry

    def track(self, metered: Metered, since: datetime) -> Tracking | None:
        """See `TrackedUsage.track`."""
        meter = metered.meter
        try:
            series = self._registry.get(meter)
        except UnavailableError:
            return None
        if series.state != "ready":
            return None
        filters = tuple(
            (series.group_paths.index(meter.group_by[key]), texts)
            for key, texts in sorted(metered.filters.items())
        )
        counts = meter.aggregation is Aggregation.COUNT
        begin = max(since, meter.event_from) if meter.event_from else since
        return Tracking(series.id, counts, filters, begin)

    def is_tracked(self, series: int) -> bool:
        """See `TrackedUsage.is_tracked`."""
        return self._registry.has(series)

    async def positions(self, conn: AsyncConnection) -> Mapping[int, int]:
        """See `TrackedUsage.positions`."""
        return await state.load_positions(conn)

    async def read(
        self,
        metered: Metered,
        subject: str,
        spans: Sequence[Period],
        through: Mapping[int, int],
    ) -> Sequence[Decimal | None]:
        """See `TrackedUsage.read`."""
        return await _read(
            self._engine,
            self._registry,
            metered.meter,
            subject,
            metered.filters,
            spans,
            through,
        )

    async def due(
        self, metered: Metered, subject: str, now: datetime, through: Mapping[int, int]
    ) -> Sequence[Due]:
        """See `TrackedUsage.due`."""
        query = SpanQuery(subject, metered.filters, [(now, now + _FAR)], through)
        series = self._registry.get(metered.meter)
        statement = plan_instants(metered.meter, series, query, _MAX_DUE)
        rows = await self._engine.query(statement.sql, statement.params)
        return [(row[0], Decimal(row[1])) for row in rows]

    async def series(self, conn: AsyncConnection) -> Collection[int]:
        """The series that live entitlements follow."""
        return await live.tracked_series(conn)

    async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
        """Move live rows on."""
        await live.apply(conn, usages)


async def _read(
    engine: Engine,
    registry: SeriesRegistry,
    meter: Meter,
    subject: str,
    filters: Mapping[str, tuple[str, ...]],
    spans: Sequence[Period],
    through: Mapping[int, int] | None,
) -> Sequence[Decimal | None]:
    if not spans:
        return ()
    pairs = [(span.start, span.end) for span in spans]
    query = SpanQuery(subject, filters, pairs, through)
    statement = plan_spans(meter, registry.get(meter), query)
    rows = await engine.query(statement.sql, statement.params)
    return read_spans([(row[0], row[1]) for row in rows], len(spans))
