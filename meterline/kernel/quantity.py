"""What a meter reads from a JSON value: an exact decimal, a text to count, or a dimension.

Quantities are decimals of at most 20 integer and 18 fractional digits. A value that does not
fit exactly is a `ValueFault`, never a rounded number.
"""

import json
import re
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

INTEGER_DIGITS = 20
FRACTION_DIGITS = 18

MISSING_DATA = "invalid event: null and missing value property"
NOT_FINITE = "value cannot be NaN/infinity"
IS_NULL = "value cannot be null"
NOT_DECIMAL = "value cannot be parsed as a decimal"
OUT_OF_RANGE = (
    f"value is out of range: at most {INTEGER_DIGITS} integer "
    f"and {FRACTION_DIGITS} fractional digits"
)
NOT_TEXT = "value must be a string, a number or a boolean"

_NUMBER = re.compile(r"([+-]?)(?:([0-9]+)\.?([0-9]*)|\.([0-9]+))(?:[eE]([+-]?[0-9]+))?")
_NOT_FINITE = re.compile(r"[+-]?(?:nan|inf|infinity)", re.IGNORECASE | re.ASCII)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_MAX_PLAIN_DIGITS = 78
_WIDE = Context(prec=120, rounding=ROUND_HALF_EVEN)
_QUANTUM = Decimal(1).scaleb(-FRACTION_DIGITS)


@dataclass(frozen=True, slots=True)
class ValueFault:
    """Why a meter cannot use an event's value; the words are shown to people."""

    reason: str


def missing_value(path: str) -> str:
    """The reason of a fault when the data has no value at `path`."""
    return f'invalid event: missing value property: "{path}"'


def parse_value(raw: str | None, *, path: str = "") -> Decimal | ValueFault:
    """The quantity of a raw JSON value: a number, or a string that holds one.

    `raw` is None when the data has no value at `path`.
    """
    if raw is None:
        return ValueFault(missing_value(path))
    if raw == "null":
        return ValueFault(IS_NULL)
    text = _string(raw) if raw.startswith('"') else raw
    parts = _split(text)
    if parts is None:
        return ValueFault(NOT_FINITE if _NOT_FINITE.fullmatch(text) else NOT_DECIMAL)
    sign, digits, exponent = parts
    if exponent is None or exponent < -FRACTION_DIGITS or len(digits) + exponent > INTEGER_DIGITS:
        return ValueFault(OUT_OF_RANGE)
    return Decimal(_plain(sign, digits, exponent))


def text_value(raw: str | None, *, path: str = "") -> str | ValueFault:
    """What UNIQUE_COUNT counts: a string as it is, a number in canonical notation, a boolean."""
    if raw is None:
        return ValueFault(missing_value(path))
    if raw == "null":
        return ValueFault(IS_NULL)
    if raw.startswith(("{", "[")):
        return ValueFault(NOT_TEXT)
    return dimension_text(raw)


def dimension_text(raw: str | None) -> str:
    """The text of a groupBy value; what is missing, null, an object or an array is the empty text.

    Numbers that are equal have equal texts (`1.50` and `1.5`).
    """
    if raw is None or raw == "null" or raw.startswith(("{", "[")):
        return ""
    if raw.startswith('"'):
        return _SURROGATE.sub("\ufffd", _string(raw))
    return canonical_number(raw) or raw


def canonical_number(text: str) -> str | None:
    """A number without sign of plus, exponent or needless zeros; None when it is no number.

    Beyond 78 digits the plain notation would be absurd: there it is `<digits>e<exponent>`.
    """
    parts = _split(text)
    if parts is None:
        return None
    sign, digits, exponent = parts
    if exponent is None:
        return text
    if len(digits) + abs(exponent) > _MAX_PLAIN_DIGITS:
        return f"{sign}{digits}e{exponent}"
    return _plain(sign, digits, exponent)


def format_number(value: Decimal) -> str:
    """A decimal as a plain JSON number: every digit, no exponent, no trailing zeros."""
    text = str(value)
    if "E" in text:
        text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def average(total: Decimal, count: int) -> Decimal:
    """`total / count` to 18 fractional digits, ties to even."""
    # One rounding only: the exact remainder decides, not a quotient that was rounded before.
    scaled = int(_WIDE.scaleb(total, FRACTION_DIGITS))
    quotient, rest = divmod(scaled, count)
    if 2 * rest > count or (2 * rest == count and quotient % 2):
        quotient += 1
    return _WIDE.multiply(Decimal(quotient), _QUANTUM)


def _string(raw: str) -> str:
    try:
        return str(json.loads(raw, strict=False))
    except ValueError:
        return raw


def _split(text: str) -> tuple[str, str, int | None] | None:
    """Sign, digits without outer zeros, and exponent of a number; None when it is no number.

    The exponent is None when it is absurdly large. Zero has the digits '0'.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, only_fraction, power = match.groups(default="")
    fraction = fraction or only_fraction
    digits = (whole + fraction).lstrip("0")
    stripped = digits.rstrip("0")
    if not stripped:
        return "", "0", 0
    sign = "-" if sign == "-" else ""
    if len(power) > 18:
        return sign, stripped, None
    exponent = int(power or 0) - len(fraction) + len(digits) - len(stripped)
    return sign, stripped, exponent


def _plain(sign: str, digits: str, exponent: int) -> str:
    if exponent >= 0:
        return sign + digits + "0" * exponent
    padded = digits.rjust(1 - exponent, "0")
    return f"{sign}{padded[:exponent]}.{padded[exponent:]}"
