from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from aggregator.filters import Comparison
from aggregator.params import query_input
from aggregator.query import QueryInput, QueryLimits, build_query
from meterline.kernel.errors import ValidationError
from meterline.kernel.windows import WindowSize
from tests.support.usage import meter

METER = meter("tokens", model="$.model", tier="$.tier")
LIMITS = QueryLimits(max_subjects=2, max_windows=24)


def refused(**given: Any) -> tuple[str, str]:
    with pytest.raises(ValidationError) as caught:
        build_query(METER, QueryInput(**given), LIMITS)
    fault = caught.value.errors[0]
    return fault.where, fault.reason


def test_a_whole_query() -> None:
    query = build_query(
        METER,
        QueryInput(
            begin="2026-01-01T00:00:00Z",
            end="2026-01-02T00:00:00+01:00",
            window_size="HOUR",
            time_zone="Europe/Budapest",
            subjects=["a", "b", "a"],
            group_by=["tier", "subject", "tier"],
            filters={"model": "gpt"},
        ),
        LIMITS,
    )
    assert query.range.begin == datetime(2026, 1, 1, tzinfo=UTC)
    assert query.range.end == datetime(2026, 1, 1, 23, tzinfo=UTC)
    assert query.window is WindowSize.HOUR
    assert query.subjects == ("a", "b")
    assert query.by_subject
    assert query.group_by == ("tier",)
    assert query.filters == (("model", Comparison("$eq", "gpt")),)


def test_the_meters_start_limits_what_counts_but_not_the_answers_range() -> None:
    start = datetime(2026, 1, 1, 5, tzinfo=UTC)
    late = replace(METER, event_from=start)
    query = build_query(late, QueryInput(begin="2026-01-01T00:00:00Z"), LIMITS)
    assert (query.range.begin, query.since) == (datetime(2026, 1, 1, tzinfo=UTC), start)


def test_each_fault_names_its_place_and_reason() -> None:
    assert refused(begin="yesterday")[0] == "from"
    assert refused(end="2026-02-30T00:00:00Z")[0] == "to"
    same = "2026-01-01T00:00:00Z"
    assert refused(begin=same, end=same) == ("from", "must be before to")
    assert refused(window_size="WEEK")[0] == "windowSize"
    assert refused(window_size="day")[0] == "windowSize"
    assert refused(time_zone="Mars/Base") == ("windowTimeZone", "unknown time zone: 'Mars/Base'")
    assert refused(subjects=["a", "b", "c"])[0] == "subject"
    assert refused(subjects=["\0"])[0] == "subject"
    where, reason = refused(group_by=["modell"])
    assert where == "groupBy"
    assert reason == "invalid group by: modell; the meter has model, tier"
    assert refused(group_by=["customer_id"])[0] == "groupBy"
    assert refused(filters={"subject": "a"})[0] == "filterGroupBy"
    assert refused(filters={"x'; --": "a"})[0] == "filterGroupBy"


def test_the_number_of_windows_is_limited_at_its_edge() -> None:
    begin, end = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
    assert build_query(METER, QueryInput(begin, end, "HOUR"), LIMITS)
    longer = end.replace("00Z", "01Z")
    assert refused(begin=begin, end=longer, window_size="HOUR")[0] == "windowSize"


def test_parameters_spell_the_same() -> None:
    given = query_input(
        [
            ("from", "2026-01-01T00:00:00 02:00"),  # a + that was not escaped
            ("windowSize", "DAY"),
            ("windowTimeZone", "Asia/Kolkata"),
            ("subject", "a"),
            ("subject[]", "b"),
            ("groupBy[]", "model"),
            ("groupBy", "tier"),
            ("filterGroupBy[model]", "x"),
            ("filterGroupBy[tier]", "y"),
            ("filterGroupBy[tier]", "z"),
            ("clientId", "ignored"),
        ]
    )
    assert given == QueryInput(
        begin="2026-01-01T00:00:00+02:00",
        window_size="DAY",
        time_zone="Asia/Kolkata",
        subjects=["a", "b"],
        group_by=["model", "tier"],
        filters={"model": "x", "tier": ["y", "z"]},
    )


@pytest.mark.parametrize(
    "params",
    [
        [("from", "2026-01-01T00:00:00Z"), ("from", "2026-01-01T00:00:00Z")],
        [("windowSize", "DAY"), ("windowSize", "HOUR")],
        [("filterCustomerId", "x")],
        [("advancedMeterGroupByFilters", "{}")],
    ],
)
def test_parameters_that_would_be_misunderstood_are_refused(
    params: list[tuple[str, str]],
) -> None:
    with pytest.raises(ValidationError):
        query_input(params)
