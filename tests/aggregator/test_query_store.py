"""The store's answers are the reference's, for every aggregation, window, zone and filter."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator import reference
from aggregator.cut import make_cut, needs_data_range, on_whole_minutes
from aggregator.filters import Comparison, Either, Every, Filter, Membership
from aggregator.query import MeterQuery, QueryLimits, QueryRow, TimeRange, later, row_order
from aggregator.reference import PlainEvent
from aggregator.rows import Statement
from aggregator.series import Series
from aggregator.sql import data_range, plan_query
from meterline.kernel.instants import from_micros
from meterline.kernel.meters import Aggregation, Meter
from meterline.kernel.windows import WindowSize
from tests.support import nasty
from tests.support.usage import Rig, meter, running_sink

GROUPS = {"model": "$.model", "tier": "$['user-tier'].name", "first": "$.list[0]"}
LIMITS = QueryLimits(max_windows=150_000)
BATCHES = 10


class Stored:
    """A store that holds the population, and what the reference knows of it."""

    def __init__(self, runner: asyncio.Runner, rig: Rig, events: Sequence[PlainEvent]) -> None:
        self.runner = runner
        self.rig = rig
        self.points = {kind: reference.points(one, events) for kind, one in METERS.items()}
        self.series: dict[str, Series] = {}

    def answer(self, one: Meter, query: MeterQuery, series: Series) -> list[QueryRow]:
        """What the service would answer."""
        if query.since and query.range.end and query.since >= query.range.end:
            return []
        data = TimeRange()
        if needs_data_range(query):
            first, last, count = self._read(data_range(one, series, query))[0]
            if not count:
                return []
            data = TimeRange(from_micros(first), from_micros(last) + timedelta(minutes=1))
        cut = make_cut(query, data, LIMITS)
        plan = plan_query(one, series, query, cut, on_whole_minutes(query, data), 100_000)
        rows = [plan.row(cells, {}) for cells in self._read(plan.statement)]
        return sorted(rows, key=row_order) if query.window is None else rows

    def _read(self, statement: Statement) -> list[tuple[Any, ...]]:
        return self.runner.run(self.rig.engine.query(statement.sql, statement.params))


METERS = {
    aggregation: meter(aggregation.lower(), aggregation, "$.tokens", **GROUPS)
    for aggregation in Aggregation
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    stack = AsyncExitStack()
    people = nasty.population(7)

    async def fill() -> Stored:
        path = tmp_path_factory.mktemp("store")
        rig = await stack.enter_async_context(running_sink(path, METERS.values()))
        events = await people.send_to(rig.log, BATCHES)
        await rig.settle()
        stored = Stored(runner, rig, events)
        for one in METERS.values():
            stored.series[one.id] = await rig.sink.registry.ensure(one)
        return stored

    with asyncio.Runner() as runner:
        try:
            yield runner.run(fill())
        finally:
            runner.run(stack.aclose())


instants = st.sampled_from(sorted(event.time for event in nasty.population(7).plain)).flatmap(
    lambda t: (
        st.integers(-90_000_000, 90_000_000).map(lambda n: t + timedelta(milliseconds=n))
        | st.sampled_from([t, t.replace(second=0, microsecond=0)])
    )
)


@st.composite
def ranges(draw: st.DrawFn) -> TimeRange:
    edges = draw(st.lists(instants, max_size=2, unique=True).map(sorted))
    low, high = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
    edges = [min(max(edge, low), high) for edge in edges]
    if len(edges) == 2 and edges[0] < edges[1]:
        return TimeRange(*edges)
    if edges:
        return draw(st.sampled_from([TimeRange(edges[0], None), TimeRange(None, edges[0])]))
    return TimeRange()


texts = st.sampled_from(
    ["gpt", "GPT", "g_t", "", "é", "1.5", "10", "true", "it's", "a\nb", "😀", "zz"]
)
patterns = st.text(st.sampled_from("g%_tGP-é\\"), max_size=5).filter(
    lambda text: not (len(text) - len(text.rstrip("\\"))) % 2
)
comparisons = st.builds(
    Comparison, st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]), texts
) | st.builds(Comparison, st.sampled_from(["$like", "$nlike", "$ilike", "$nilike"]), patterns)
members = st.builds(Membership, st.lists(texts, min_size=1, max_size=4).map(tuple), st.booleans())
filters: st.SearchStrategy[Filter] = st.recursive(
    comparisons | members,
    lambda inner: st.builds(
        lambda kind, parts: kind(tuple(parts)),
        st.sampled_from([Every, Either]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=4,
)


@st.composite
def queries(draw: st.DrawFn) -> MeterQuery:
    span = draw(ranges())
    subjects = tuple(draw(st.lists(st.sampled_from(nasty.SUBJECTS), max_size=2, unique=True)))
    if draw(st.integers(0, 2)):
        subjects = ()
    keys = st.lists(st.sampled_from(sorted(GROUPS)), max_size=2, unique=True).map(tuple)
    plain = draw(st.booleans())
    window = draw(st.none() | st.sampled_from(WindowSize))
    if window in (WindowSize.MINUTE, WindowSize.HOUR):
        # Listing each odd minute of centuries is what the limit of windows is there for.
        begin, end = (span.begin, span.end) if span.begin and span.end else BUSY
        span = TimeRange(begin, min(end, begin + timedelta(days=60)))
    return MeterQuery(
        range=span,
        since=later(span.begin, draw(st.none() | instants) if draw(st.booleans()) else None),
        window=window,
        tz=ZoneInfo(draw(st.sampled_from(nasty.ZONES))),
        subjects=() if plain else subjects,
        by_subject=not plain and (bool(subjects) or draw(st.booleans())),
        group_by=() if plain else draw(keys),
        filters=()
        if plain
        else tuple(
            draw(st.dictionaries(st.sampled_from(sorted(GROUPS)), filters, max_size=2)).items()
        ),
    )


BUSY = (datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 9, tzinfo=UTC))
everything = settings(
    max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)


@everything
@given(aggregation=st.sampled_from(Aggregation), query=queries())
def test_the_store_answers_as_the_reference(
    stored: Stored, aggregation: Aggregation, query: MeterQuery
) -> None:
    one = METERS[aggregation]
    answer = stored.answer(one, query, stored.series[one.id])
    assert answer == reference.answer(one, query, stored.points[aggregation])


@everything
@given(
    aggregation=st.sampled_from(Aggregation),
    query=queries(),
    gap=st.tuples(st.integers(0, BATCHES), st.integers(1, BATCHES + 1)),
)
def test_answers_are_right_while_a_series_is_back_filled(
    stored: Stored, aggregation: Aggregation, query: MeterQuery, gap: tuple[int, int]
) -> None:
    one = METERS[aggregation]
    # The gap's points are in the store, as they are just before a step of the back-fill ends.
    series = replace(
        stored.series[one.id],
        state="backfilling",
        live_from={0: gap[1]},
        done_through={0: min(gap[0], gap[1] - 1)},
    )
    answer = stored.answer(one, query, series)
    assert answer == reference.answer(one, query, stored.points[aggregation])


@pytest.mark.parametrize("aggregation", Aggregation)
def test_a_new_series_takes_up_the_whole_population(
    stored: Stored, aggregation: Aggregation
) -> None:
    one = meter(f"late_{aggregation.lower()}", aggregation, "$.tokens", model="$.model")
    query = MeterQuery(window=WindowSize.MONTH, by_subject=True, group_by=("model",))
    expected = reference.answer(one, query, stored.points[aggregation])
    registry = stored.rig.sink.registry
    young = stored.runner.run(registry.ensure(one))
    if young.state == "backfilling":
        assert stored.answer(one, query, young) == expected
    stored.runner.run(stored.rig.filled())
    ready = stored.runner.run(registry.get(one))
    assert stored.answer(one, query, ready) == expected
