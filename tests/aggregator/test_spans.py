"""The values of a subject over many spans agree with one meter query a span."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.spans import Span, SpanQuery, plan_spans, read_spans
from meterline.kernel.meters import Aggregation, Meter
from tests.support.usage import Rig, canonical, meter, running_sink, send

START = datetime(2026, 1, 1, tzinfo=UTC)
METERS = [
    meter("sum", model="$.model"),
    meter("calls", Aggregation.COUNT, model="$.model"),
    meter("top", Aggregation.MAX, model="$.model"),
    meter("latest", Aggregation.LATEST, model="$.model"),
    meter("users", Aggregation.UNIQUE_COUNT, "$.tokens", model="$.model"),
]
EVENTS = [(START + timedelta(hours=7 * n), Decimal(n % 11) / 2, f"m{n % 3}") for n in range(60)]


def _value(meter: Meter, span: Span, models: Sequence[str]) -> Decimal | None:
    found = [value for at, value, model in EVENTS if span[0] <= at < span[1] and model in models]
    if not found:
        return None
    answers = {
        Aggregation.SUM: sum(found, Decimal(0)),
        Aggregation.COUNT: Decimal(len(found)),
        Aggregation.MAX: max(found),
        Aggregation.LATEST: found[-1],
        Aggregation.UNIQUE_COUNT: Decimal(len(set(found))),
    }
    return answers[meter.aggregation]


async def _read(rig: Rig, meter: Meter, query: SpanQuery) -> list[Decimal | None]:
    statement = plan_spans(meter, await rig.sink.registry.get(meter), query)
    rows = await rig.engine.query(statement.sql, statement.params)
    return read_spans([(row[0], row[1]) for row in rows], len(query.spans))


async def _filled(rig: Rig) -> None:
    events = [
        canonical(str(n), f'{{"tokens": {value}, "model": "{model}"}}', time=at.isoformat())
        for n, (at, value, model) in enumerate(EVENTS)
    ]
    await send(rig.log, [*events, canonical("other", '{"tokens": 99}', subject="bob")])
    await rig.settle()


MARKS = st.lists(st.integers(0, 24 * 20), min_size=2, max_size=15, unique=True).map(sorted)


@pytest.mark.parametrize("follow", [True, False])
async def test_spans_agree_with_plain_python(tmp_path: Path, follow: bool) -> None:
    async with running_sink(tmp_path, METERS) as rig:
        await _filled(rig)
        loop_cases: list[tuple[list[Span], list[str]]] = []

        @settings(max_examples=25, database=None)
        @given(marks=MARKS, models=st.sets(st.sampled_from(["m0", "m1", "m2"]), min_size=1))
        def collect(marks: list[int], models: set[str]) -> None:
            instants = [START + timedelta(hours=mark) for mark in marks]
            pairs = zip(instants, instants[1:], strict=False)
            spans = list(pairs) if follow else [(instants[0], end) for end in instants[1:]]
            loop_cases.append((spans, sorted(models)))

        collect()
        for spans, models in loop_cases:
            for one in METERS:
                query = SpanQuery("alice", {"model": models}, spans)
                expected = [_value(one, span, models) for span in spans]
                assert await _read(rig, one, query) == expected, (one.slug, spans)


async def test_a_read_can_be_bounded_by_offset(tmp_path: Path) -> None:
    async with running_sink(tmp_path, METERS[:1]) as rig:
        await _filled(rig)
        await send(rig.log, [canonical("more", '{"tokens": 5}', time="2026-01-02T00:00:00Z")])
        await rig.settle()
        everything = (START, START + timedelta(days=30))
        total = sum((value for _, value, _ in EVENTS), Decimal(0))
        for through, expected in [({0: 1}, total), ({0: 2}, total + 5), (None, total + 5)]:
            query = SpanQuery("alice", {}, [everything], through)
            assert await _read(rig, METERS[0], query) == [expected]
