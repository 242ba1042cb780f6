from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.kernel.errors import ValidationError
from meterline.kernel.instants import (
    format_instant,
    format_micros,
    from_micros,
    parse_instant,
    to_micros,
)

instants = st.datetimes(datetime(1900, 1, 1), datetime(2199, 12, 31), timezones=st.just(UTC))


@given(instants)
def test_instants_survive_text_and_numbers(instant: datetime) -> None:
    assert parse_instant(format_instant(instant)) == instant
    assert from_micros(to_micros(instant)) == instant


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-01-31T01:02:03Z", "2026-01-31T01:02:03Z"),
        ("2026-01-31t01:02:03.5z", "2026-01-31T01:02:03.5Z"),
        ("2026-01-31 01:02:03.123456789+02:00", "2026-01-30T23:02:03.123456Z"),
        ("2026-01-31T00:00:00.000-00:30", "2026-01-31T00:30:00Z"),
    ],
)
def test_rfc_3339(text: str, instant: str) -> None:
    assert format_instant(parse_instant(text)) == instant


@pytest.mark.parametrize(
    "text",
    ["", "2026-01-31", "2026-02-30T00:00:00Z", "2026-01-31T00:00:00", "2026-01-31T24:00:00Z"]
    + ["1899-12-31T23:59:59Z", "2200-01-01T00:00:01Z", "9999-12-31T23:59:59-23:59", "1769900000"]
    + ["٢٠26-01-31T00:00:00Z", "2026-01-31T00:00:00Z'"],
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        parse_instant(text)


@given(instants)
def test_microseconds_are_written_as_their_instant_is(instant: datetime) -> None:
    assert format_micros(to_micros(instant)) == format_instant(instant)
