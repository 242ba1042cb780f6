"""What was expected against what was answered. Pure; exact."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from entitlements.balance.exact import ROOM
from meterline.kernel.errors import ValidationError
from meterline.kernel.instants import parse_instant

Json = dict[str, Any]


def mismatch(what: str, expected: Any, found: Any) -> Json:
    """One difference."""
    return {"what": what, "expected": expected, "found": found}


def compare(what: str, expected: Any, found: Any) -> Iterator[Json]:
    """The difference between two values, if there is one.

    Numbers are equal by value, times by instant; an amount that a mapping does not name is 0.
    """
    if not _same(expected, found):
        yield mismatch(what, expected, found)


def compare_value(expect: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Json]:
    """The differences of a value. `consistent` is |usage + balance - overage|."""
    for name, expected in expect.items():
        if name == "consistent":
            yield from compare(name, expected, _consistent(found))
        else:
            yield from compare(name, expected, found.get(name))


def compare_period(expect: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Json]:
    """The differences of a period."""
    for name, expected in expect.items():
        yield from compare(f"currentPeriod.{name}", expected, found.get(name))


def compare_history(expect: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Json]:
    """The differences of a history: counts, and rows by their index `i`."""
    windows = [_window(row) for row in found.get("windowedHistory", ())]
    segments = [_segment(row) for row in found.get("burndownHistory", ())]
    for name, expected in expect.items():
        match name:
            case "windowCount":
                yield from compare(name, expected, len(windows))
            case "segmentCount":
                yield from compare(name, expected, len(segments))
            case "windows":
                yield from _compare_rows(name, expected, windows)
            case "segments":
                yield from _compare_rows(name, expected, segments)
            case _:
                yield mismatch(name, expected, None)


def compare_error(expected: str | None, found: str | None) -> Iterator[Json]:
    """The difference between the error that should be and the one that is; a part is enough."""
    if expected is None and found is None:
        return
    if expected is None or found is None or expected.lower() not in found.lower():
        yield mismatch("error", expected, found)


def _compare_rows(
    what: str, expected: Sequence[Mapping[str, Any]], found: Sequence[Json]
) -> Iterator[Json]:
    for row in expected:
        i = row["i"]
        if not 0 <= i < len(found):
            yield mismatch(f"{what}[{i}]", dict(row), None)
            continue
        for name, value in row.items():
            if name != "i":
                yield from compare(f"{what}[{i}].{name}", value, found[i].get(name))


def _window(row: Mapping[str, Any]) -> Json:
    return {**row, **row["period"]}


def _segment(row: Mapping[str, Any]) -> Json:
    usages = {usage["grantId"]: usage["usage"] for usage in row["grantUsages"]}
    return {
        **row,
        **row["period"],
        "grantUsages": usages,
        "usageReset": row.get("endsInReset", False),
        "rollover": row.get("isRollover", False),
    }


def _consistent(found: Mapping[str, Any]) -> Decimal | None:
    try:
        usage, balance, overage = (Decimal(found[n]) for n in ("usage", "balance", "overage"))
    except KeyError:
        return None
    # Not `abs`, which rounds to the digits of the context.
    return ROOM.subtract(ROOM.add(usage, balance), overage).copy_abs()


def _same(expected: Any, found: Any) -> bool:
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    if isinstance(expected, dict) and isinstance(found, dict):
        names = expected.keys() | found.keys()
        return all(_same(expected.get(name, 0), found.get(name, 0)) for name in names)
    if isinstance(expected, str) and isinstance(found, str):
        return expected == found or _same_instant(expected, found)
    return bool(expected == found)


def _same_instant(expected: str, found: str) -> bool:
    try:
        return parse_instant(expected) == parse_instant(found)
    except ValidationError:
        return False
