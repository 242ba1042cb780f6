"""How spans are put together into reads."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from entitlements.spans import batches
from meterline.kernel.periods import Period

START = datetime(2026, 1, 1, tzinfo=UTC)


def span(start: int, end: int) -> Period:
    return Period(START + timedelta(hours=start), START + timedelta(hours=end))


def test_spans_one_after_the_other_are_one_batch() -> None:
    spans = [span(n, n + 1) for n in range(1000)]
    assert batches(spans, 64) == [list(range(1000))]


def test_spans_with_few_overlaps_are_a_batch_for_each_layer() -> None:
    spans = [one for n in range(0, 1000, 2) for one in (span(n, n + 1), span(n, n + 2))]
    assert batches(spans, 64) == [list(range(0, 1000, 2)), list(range(1, 1000, 2))]


def test_spans_that_all_overlap_are_cut_into_pieces() -> None:
    spans = [span(0, n) for n in range(1, 131)]
    assert batches(spans, 64) == [range(64), range(64, 128), range(128, 130)]
    assert batches(spans[:3], 64) == [range(3)]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=60), st.integers(1, 10))
def test_every_span_is_in_one_batch_and_none_has_too_many_overlaps(
    given: list[tuple[int, int]], most: int
) -> None:
    spans = [span(start, start + length) for start, length in given]
    found = batches(spans, most)
    assert sorted(place for batch in found for place in batch) == list(range(len(spans)))
    for batch in found:
        ordered = sorted((spans[place] for place in batch), key=lambda one: one.start)
        disjoint = all(
            one.end <= other.start for one, other in zip(ordered, ordered[1:], strict=False)
        )
        assert disjoint or len(batch) <= most
