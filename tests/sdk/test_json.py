from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline_sdk import _json
from meterline_sdk.models import Grant, MeterResult, Value

_DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=18).filter(
    lambda one: abs(one) < Decimal(10) ** 20
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | _DECIMALS,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(_VALUES)
def test_what_is_written_is_read_again_with_every_digit(value: Any) -> None:
    assert _json.loads(_json.dumps(value)) == value


@given(_DECIMALS)
def test_amounts_are_plain_numbers(amount: Decimal) -> None:
    assert b"E" not in _json.dumps([amount]).upper()


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="zone"):
        _json.dumps({"at": datetime(2026, 1, 1)})  # noqa: DTZ001
    assert _json.dumps(datetime(2026, 1, 1, tzinfo=UTC)) == b'"2026-01-01T00:00:00+00:00"'


def test_answers_become_values_and_what_is_new_is_kept() -> None:
    found = _json.read(
        MeterResult,
        _json.loads(
            b'{"from":"2026-01-01T00:00:00Z","data":[{"value":12345678901234567890.5,'
            b'"groupBy":{"model":null},"novel":1}]}'
        ),
    )
    assert found.from_ == datetime(2026, 1, 1, tzinfo=UTC)
    assert found.data[0].value == Decimal("12345678901234567890.5")
    assert found.data[0].group_by == {"model": None}
    assert found.data[0].extra == {"novel": 1}
    access = _json.read(dict[str, Value], {"a": {"hasAccess": True, "asOf": None}})
    assert access["a"] == Value(has_access=True)
    grant = _json.read(Grant, {"id": "1", "entitlementId": "2", "amount": 5})
    assert grant.amount == Decimal(5)
