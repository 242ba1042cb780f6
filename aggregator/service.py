"""Meters: their definitions, and the answers to queries about them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from aggregator import sql
from aggregator.cut import make_cut, needs_data_range, on_whole_minutes
from aggregator.params import query_input
from aggregator.query import (
    SUBJECT,
    MeterQuery,
    QueryInput,
    QueryLimits,
    QueryRow,
    TimeRange,
    build_query,
    later,
    parse_range,
    row_order,
)
from aggregator.rows import Statement
from aggregator.series import Series, series_key
from aggregator.sql import Plan
from aggregator.stores.engine import EngineError
from aggregator.stores.meters import OnChange, SqlMeterStore
from meterline.kernel.clock import Clock
from meterline.kernel.errors import (
    ConflictError,
    FieldError,
    NotFoundError,
    UnavailableError,
    ValidationError,
)
from meterline.kernel.ids import new_ulid
from meterline.kernel.instants import from_micros
from meterline.kernel.meters import Meter, MeterSpec, validate_meter

Cells = list[tuple[Any, ...]]
_MINUTE = timedelta(minutes=1)

InUse = Callable[[Meter, Meter | None], Awaitable[str | None]]
"""Why others need a meter to stay as it was: before, and after the change (None: deleted)."""


async def unused(before: Meter, after: Meter | None) -> str | None:
    """Nobody needs any meter."""
    return None


class SeriesBook(Protocol):
    """Which series holds a meter's values."""

    async def ensure(self, meter: Meter) -> Series:
        """The series of a meter, made if it is not there."""
        ...

    async def release(self, meter: Meter) -> None:
        """The meter no longer needs its series."""
        ...

    async def get(self, meter: Meter) -> Series:
        """The series that a meter's queries read; `UnavailableError` while it is too young."""
        ...

    def progress(self, meter: Meter) -> tuple[str, float]:
        """State and progress (0 to 1) of the back-fill that a meter waits for."""
        ...


class EventReader(Protocol):
    """The reading half of the event store's engine."""

    async def query(self, sql: str, params: Mapping[str, Any]) -> Cells:
        """The rows of a read."""
        ...


@dataclass(frozen=True, slots=True)
class MeterLimits:
    """How many meters there may be."""

    max_meters: int = 1_000
    """Meters in one namespace."""


@dataclass(frozen=True, slots=True)
class MeterStatus:
    """Whether all stored events are in the meter's series. Queries are right either way."""

    state: str
    progress: float


@dataclass(frozen=True, slots=True)
class MeterChange:
    """What a PUT says. What is None stays as it is."""

    name: str | None = None
    description: str | None = None
    metadata: Mapping[str, str] | None = None
    group_by: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer to a meter query."""

    meter: Meter
    query: MeterQuery
    rows: Sequence[QueryRow]


@dataclass(frozen=True, slots=True)
class MeterDiff:
    """What `reconcile` did, as slugs; `changed` names what differed."""

    created: Sequence[str] = ()
    changed: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unchanged: Sequence[str] = ()


class MeterService:
    """Meters of a namespace, and queries over them."""

    def __init__(
        self,
        store: SqlMeterStore,
        series: SeriesBook,
        events: EventReader,
        clock: Clock,
        limits: QueryLimits | None = None,
        meter_limits: MeterLimits | None = None,
        in_use: InUse = unused,
        on_change: OnChange | None = None,
    ) -> None:
        self._store = store
        self._series = series
        self._events = events
        self._clock = clock
        self._changes = asyncio.Lock()
        self.limits = limits or QueryLimits()
        self._meter_limits = meter_limits or MeterLimits()
        self._in_use = in_use
        self._on_change = on_change

    async def list(self, namespace: str) -> Sequence[Meter]:
        """The meters of a namespace, oldest first."""
        return await self._store.list(namespace)

    async def get(self, namespace: str, id_or_slug: str) -> Meter:
        """The meter with that slug or id."""
        meter = await self._store.find(namespace, id_or_slug)
        if meter is None:
            raise NotFoundError("there is no such meter")
        return meter

    def status(self, meter: Meter) -> MeterStatus:
        """How far the meter's series is filled."""
        state, progress = self._series.progress(meter)
        # To callers there are two states; what comes before the back-fill is part of it.
        return MeterStatus("ready" if state == "ready" else "backfilling", progress)

    async def create(self, namespace: str, spec: MeterSpec) -> Meter:
        """Make a meter. It counts the events that are already there."""
        now = self._clock()
        meter = Meter(
            id=new_ulid(now),
            namespace=namespace,
            slug=spec.slug,
            name=spec.name,
            description=spec.description,
            aggregation=spec.aggregation,
            event_type=spec.event_type,
            value_property=spec.value_property,
            group_by=spec.group_by,
            event_from=spec.event_from,
            metadata=spec.metadata,
            created_at=now,
            updated_at=now,
        )
        async with self._changes, self._series_for(meter):
            await self._store.add(meter, self._meter_limits.max_meters)
        return meter

    async def update(self, namespace: str, id_or_slug: str, change: MeterChange) -> Meter:
        """Change a meter. Another `group_by` means another series; queries are right at once."""
        async with self._changes:
            before = await self.get(namespace, id_or_slug)
            after = replace(before, updated_at=self._clock(), **_given(before, change))
            await self._replace(before, after)
            return after

    async def delete(self, namespace: str, id_or_slug: str) -> None:
        """Delete a meter. The events stay."""
        async with self._changes:
            meter = await self.get(namespace, id_or_slug)
            await self._refuse_needed(meter, None)
            await self._store.delete(meter)
            await self._series.release(meter)

    async def reconcile(self, namespace: str, declared: Iterable[MeterSpec]) -> MeterDiff:
        """Make the declared meters be as declared, all fields of them; others are left alone.

        A meter is only a view of the stored events, so even its aggregation can change in place.
        """
        existing = {meter.slug: meter for meter in await self.list(namespace)}
        created, unchanged = [], []
        changed: dict[str, Sequence[str]] = {}
        for spec in declared:
            before = existing.get(spec.slug)
            if before is None:
                await self.create(namespace, spec)
                created.append(spec.slug)
                continue
            wanted = {name: getattr(spec, name) for name in _DECLARED}
            different = [name for name in _DECLARED if getattr(before, name) != wanted[name]]
            if not different:
                unchanged.append(spec.slug)
                continue
            async with self._changes:
                await self._replace(before, replace(before, updated_at=self._clock(), **wanted))
            changed[spec.slug] = different
        return MeterDiff(created, changed, unchanged)

    async def query(self, namespace: str, id_or_slug: str, given: QueryInput) -> QueryResult:
        """The answer to a query, exact and complete, or an error."""
        meter = await self.get(namespace, id_or_slug)
        query = build_query(meter, given, self.limits)
        return QueryResult(meter, query, await self._rows(meter, query))

    async def query_from_params(
        self,
        namespace: str,
        id_or_slug: str,
        params: Iterable[tuple[str, str]] | Any,
        *,
        subject: str | None = None,
    ) -> QueryResult:
        """A query spelled as the parameters of a GET request.

        With `subject` the answer is about that subject alone, whatever the parameters say.
        """
        given = query_input(params.multi_items() if hasattr(params, "multi_items") else params)
        if subject is not None:
            given = replace(given, subjects=(subject,))
        return await self.query(namespace, id_or_slug, given)

    async def subjects(
        self, namespace: str, id_or_slug: str, begin: str | None, end: str | None
    ) -> Sequence[str]:
        """The subjects with usage in a range, sorted."""
        meter = await self.get(namespace, id_or_slug)
        span = _since_event_from(meter, parse_range(begin, end))
        limit = self.limits.max_listed
        series = await self._series.get(meter)
        found = await self._read(sql.list_subjects(meter, series, span, limit + 1))
        return _listed(found, limit, "subjects")

    async def group_values(
        self, namespace: str, id_or_slug: str, key: str, begin: str | None, end: str | None
    ) -> Sequence[str]:
        """The values of a groupBy key in a range, sorted."""
        meter = await self.get(namespace, id_or_slug)
        if key == SUBJECT:
            return await self.subjects(namespace, id_or_slug, begin, end)
        if key not in meter.group_by:
            raise NotFoundError("the meter has no such groupBy key")
        span = _since_event_from(meter, parse_range(begin, end))
        limit = self.limits.max_listed
        series = await self._series.get(meter)
        found = await self._read(sql.list_values(meter, series, key, span, limit + 1))
        return _listed(found, limit, "values")

    async def _rows(self, meter: Meter, query: MeterQuery) -> Sequence[QueryRow]:
        series = await self._series.get(meter)
        if query.since and query.range.end and query.since >= query.range.end:
            return []
        data = TimeRange()
        if needs_data_range(query):
            (first, last, count), *_ = await self._read(sql.data_range(meter, series, query))
            if not count:
                return []
            # Of totals the first instants of minutes are known; that is near enough.
            data = TimeRange(from_micros(first), from_micros(last) + _MINUTE)
        if query.tz.key == "UTC":
            cut = make_cut(query, data, self.limits)
        else:
            # Thousands of windows over changes of the clocks are listed one by one.
            cut = await asyncio.to_thread(make_cut, query, data, self.limits)
        limit = self.limits.max_rows
        totals = on_whole_minutes(query, data)
        plan = sql.plan_query(meter, series, query, cut, totals, limit + 1)
        found = await self._read(plan.statement)
        if len(found) > limit:
            raise _too_many(f"the answer has more than {limit} rows", "groupBy")
        # Many rows take a while, and other requests should not wait for them.
        if len(found) > 2_000:
            return await asyncio.to_thread(_decode, plan, found)
        return _decode(plan, found)

    async def _read(self, statement: Statement) -> Cells:
        try:
            return await self._events.query(statement.sql, statement.params)
        except EngineError as error:
            raise UnavailableError("the event store could not answer the query") from error

    @asynccontextmanager
    async def _series_for(self, meter: Meter) -> AsyncIterator[None]:
        """The meter's series, let go again when the meter could not be written."""
        await self._series.ensure(meter)
        try:
            yield
        except BaseException:
            await self._series.release(meter)
            raise

    async def _replace(self, before: Meter, after: Meter) -> None:
        """Write `after`; its series is there before any query can ask for it."""
        await self._refuse_needed(before, after)
        await self._series.ensure(after)
        try:
            if not await self._store.replace(after, self._on_change):
                raise NotFoundError("there is no such meter")
        except BaseException:
            await self._release_other(after, before)
            raise
        await self._release_other(before, after)

    async def _refuse_needed(self, before: Meter, after: Meter | None) -> None:
        reason = await self._in_use(before, after)
        if reason is not None:
            raise ConflictError(f"the meter {before.slug} is needed: {reason}")

    async def _release_other(self, unused: Meter, used: Meter) -> None:
        if series_key(unused) != series_key(used):
            await self._series.release(unused)


_DECLARED = (
    "name", "description", "aggregation", "event_type", "value_property", "group_by",
    "event_from", "metadata",
)  # fmt: skip


def _given(meter: Meter, change: MeterChange) -> dict[str, Any]:
    """The changed fields of a meter, checked by the rules for all of it."""
    spec = validate_meter(
        slug=meter.slug,
        aggregation=meter.aggregation,
        event_type=meter.event_type,
        value_property=meter.value_property,
        name=meter.name if change.name is None else change.name,
        description=meter.description if change.description is None else change.description,
        metadata=meter.metadata if change.metadata is None else change.metadata,
        group_by=meter.group_by if change.group_by is None else change.group_by,
    )
    return {
        "name": spec.name,
        "description": spec.description,
        "metadata": spec.metadata,
        "group_by": spec.group_by,
    }


def _since_event_from(meter: Meter, span: TimeRange) -> TimeRange:
    return TimeRange(later(span.begin, meter.event_from), span.end)


def _decode(plan: Plan, found: Cells) -> list[QueryRow]:
    ends: dict[datetime, datetime] = {}
    rows = [plan.row(cells, ends) for cells in found]
    if plan.query.window is None:
        rows.sort(key=row_order)
    return rows


def _listed(found: Cells, limit: int, what: str) -> list[str]:
    if len(found) > limit:
        raise _too_many(f"there are more than {limit} {what}", "from")
    return [row[0] for row in found]


def _too_many(reason: str, where: str) -> ValidationError:
    reason += ": take a shorter range, larger windows, or a filter"
    return ValidationError(reason, errors=[FieldError(where, reason)])
