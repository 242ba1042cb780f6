from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.kernel.quantity import (
    IS_NULL,
    NOT_DECIMAL,
    NOT_FINITE,
    OUT_OF_RANGE,
    ValueFault,
    average,
    canonical_number,
    dimension_text,
    format_number,
    missing_value,
    parse_value,
    text_value,
)

LARGEST = "9" * 20 + "." + "9" * 18


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ("1", "1"),
        ("-0", "0"),
        ("1.50", "1.5"),
        ("1e3", "1000"),
        ("1E-18", "0.000000000000000001"),
        ('"12"', "12"),
        ('"+4"', "4"),
        ('".5"', "0.5"),
        ('"1."', "1"),
        ('"\\u0031"', "1"),
        ("9007199254740993", "9007199254740993"),
        (LARGEST, LARGEST),
        ("-" + LARGEST, "-" + LARGEST),
        ("0.1000000000000000000000", "0.1"),
        ("0e999999999999999999999", "0"),
        ("0.00000000000000000001e20", "1"),
    ],
)
def test_numbers_and_strings_that_hold_them_are_exact(raw: str, value: str) -> None:
    assert parse_value(raw) == Decimal(value)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (None, missing_value("$.x")),
        ("null", IS_NULL),
        ('"NaN"', NOT_FINITE),
        ('"-Infinity"', NOT_FINITE),
        ('"inf"', NOT_FINITE),
        ('""', NOT_DECIMAL),
        ('" 5"', NOT_DECIMAL),
        ('"0x10"', NOT_DECIMAL),
        ('"1_000"', NOT_DECIMAL),
        ('"1,5"', NOT_DECIMAL),
        ('"."', NOT_DECIMAL),
        ('"٣"', NOT_DECIMAL),
        ("true", NOT_DECIMAL),
        ("{}", NOT_DECIMAL),
        ("[1]", NOT_DECIMAL),
        ("1e20", OUT_OF_RANGE),
        ("1e-19", OUT_OF_RANGE),
        ("0.1234567890123456789", OUT_OF_RANGE),
        ("1e99999999999999999999999", OUT_OF_RANGE),
        ("1" * 5000, OUT_OF_RANGE),
    ],
)
def test_what_is_no_exact_quantity_is_a_fault(raw: str | None, reason: str) -> None:
    assert parse_value(raw, path="$.x") == ValueFault(reason)


@given(st.decimals(-(10**20) + 1, 10**20 - 1, places=18, allow_nan=False))
def test_any_spelling_of_a_quantity_reads_back(value: Decimal) -> None:
    for spelling in (str(value), f"{value:f}", f"{value:E}", f'"{value:f}"', format_number(value)):
        assert parse_value(spelling) == value


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (None, ""),
        ("null", ""),
        ('""', ""),
        ('"a\\nb"', "a\nb"),
        ('"\\ud800"', "\ufffd"),
        ("1.50", "1.5"),
        ("1e3", "1000"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("1.5e-3", "0.0015"),
        ("12345678901234567890.12345678901234567890", "12345678901234567890.1234567890123456789"),
        ("1e400", "1e400"),
        ("10E399", "1e400"),
        ("true", "true"),
        ("false", "false"),
        ('{"a": 1}', ""),
        ("[1, 2]", ""),
    ],
)
def test_dimensions(raw: str | None, text: str) -> None:
    assert dimension_text(raw) == text


def test_unique_count_takes_strings_numbers_and_booleans() -> None:
    assert text_value('"x"') == "x"
    assert text_value('""') == ""
    assert text_value("1.0") == text_value("1")
    assert text_value("true") == "true"
    for raw in ("{}", "[]", "null", None):
        assert isinstance(text_value(raw, path="$.x"), ValueFault)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9))
def test_canonical_numbers_keep_the_value(value: Decimal) -> None:
    text = canonical_number(str(value))
    assert text is not None
    assert Decimal(text) == value
    assert canonical_number(text) == text


@given(st.decimals(-(10**30), 10**30, places=18, allow_nan=False), st.integers(1, 10**12))
def test_an_average_is_rounded_once_to_even(total: Decimal, count: int) -> None:
    exact = Fraction(total) / count
    assert Fraction(average(total, count)) * 10**18 == round(exact * 10**18)


def test_numbers_are_written_plainly() -> None:
    assert format_number(Decimal("1E+3")) == "1000"
    assert format_number(Decimal("100.500")) == "100.5"
    assert format_number(Decimal("-0.000")) == "0"
    assert format_number(Decimal("1E-18")) == "0.000000000000000001"
