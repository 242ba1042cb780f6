"""The event that a confirmed hold becomes: its meter must count exactly the amount. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

from entitlements.balance import Metering, metering_of
from entitlements.specs import fault
from meterline.kernel.errors import ValidationError
from meterline.kernel.instants import to_micros
from meterline.kernel.jsonpath import find, parse_path
from meterline.kernel.meters import Aggregation, Meter
from meterline.kernel.quantity import (
    INTEGER_DIGITS,
    dimension_text,
    format_number,
    parse_value,
)

TOO_MUCH = Decimal(10) ** INTEGER_DIGITS
"""From here on no meter counts an amount."""

_ONE = Decimal(1)
_MAX_INDEX = 100
_SAID = frozenset({"model"})
"""Words of callers: what they say is refused rather than changed."""
Words = Mapping[str, str]
"""What is known of a use beside its amount, by groupBy key: `model`, `kind`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What counts as use of a feature: its meter, and which values of groups are allowed."""

    feature_id: str
    meter: Meter
    filters: Mapping[str, tuple[str, ...]]


def check_amount(shape: Shape, amount: Decimal) -> None:
    """Refuse an amount that no event of the meter can stand for."""
    if shape.meter.aggregation is Aggregation.COUNT and amount != _ONE:
        reason = f"must be 1: the meter {shape.meter.slug} counts events, and a hold becomes one"
        raise fault("amount", reason)
    if amount >= TOO_MUCH:
        raise fault("amount", f"must have at most {INTEGER_DIGITS} digits before the point")


def check_confirmed(shape: Shape, amount: Decimal) -> None:
    """The same of what is confirmed, which may be nothing."""
    if amount:
        check_amount(shape, amount)


def check_shape(shape: Shape, words: Words, now: int) -> None:
    """Refuse holds on a meter that no event of a hold can be made for."""
    meter = shape.meter
    if metering_of(meter.aggregation) is not Metering.ADDITIVE:
        raise fault("entitlement", f"holds need a meter of SUM or COUNT, not {meter.aggregation}")
    if meter.event_from is not None and now < to_micros(meter.event_from):
        raise fault("entitlement", f"the meter {meter.slug} does not count yet")
    data = event_data(shape, _ONE, words)
    raw = json.dumps(data)
    path = meter.value_property
    if path is not None and parse_value(find(raw, parse_path(path))) != _ONE:
        raise _cannot(meter, "its valueProperty and its groups exclude each other")
    for key, texts in shape.filters.items():
        if dimension_text(find(raw, parse_path(meter.group_by[key]))) not in texts:
            raise _cannot(meter, f"the feature's filter of {key} cannot be met")


_path = lru_cache(10_000)(parse_path)


def event_data(shape: Shape, amount: Decimal, words: Words) -> dict[str, Any]:
    """The data of the event: the amount where the meter reads it, groups as the feature allows."""
    meter, data = shape.meter, dict[str, Any]()
    if meter.value_property is not None:
        _put(data, meter, meter.value_property, format_number(amount))
    for key, path in sorted(meter.group_by.items()):
        text = words.get(key)
        allowed = shape.filters.get(key)
        if allowed is not None and text not in allowed:
            if text is not None and key in _SAID:
                known = ", ".join(allowed)
                raise fault(key, f"the feature does not count {text}: it has {known}")
            text = allowed[0]
        if text:
            _put(data, meter, path, text)
    for name, text in words.items():
        data.setdefault(name, text)
    return data


def _put(data: dict[str, Any], meter: Meter, path: str, value: str) -> None:
    """Set the value that a path names, and make what leads to it."""
    steps = _path(path).steps
    place: Any = data
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        empty: Any = {} if isinstance(following, str) else []
        if isinstance(step, str):
            if not isinstance(place, dict):
                raise _cannot(meter, f"{path} crosses another path")
            if following is None:
                if place.get(step, value) != value:
                    raise _cannot(meter, f"{path} is read twice")
                place[step] = value
            else:
                place = place.setdefault(step, empty)
            continue
        if not isinstance(place, list) or step > _MAX_INDEX:
            raise _cannot(meter, f"{path} crosses another path, or its index is above {_MAX_INDEX}")
        place += [None] * (step + 1 - len(place))
        if following is None:
            if place[step] not in (None, value):
                raise _cannot(meter, f"{path} is read twice")
            place[step] = value
        else:
            if place[step] is None:
                place[step] = empty
            place = place[step]


def _cannot(meter: Meter, why: str) -> ValidationError:
    return fault("entitlement", f"no event can stand for a hold on the meter {meter.slug}: {why}")
