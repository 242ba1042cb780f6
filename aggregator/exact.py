"""Points of events whose numbers the engine would round: read from the raw text. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from aggregator.series import Series
from meterline.kernel import quantity
from meterline.kernel.jsonpath import find, parse_path
from meterline.kernel.quantity import ValueFault


@dataclass(frozen=True, slots=True)
class ExactPoint:
    """What a series makes of one event: a value with text and dimensions, or a reason why not."""

    series: int
    value: Decimal | None
    text: str
    dims: tuple[str, ...]
    reason: str


def read_points(data: str, series: Iterable[Series]) -> list[ExactPoint]:
    """What each series makes of an event with this raw data."""
    return [_read(data, one) for one in series]


def by_type(series: Sequence[Series]) -> Mapping[tuple[str, str], list[Series]]:
    """Series by (namespace, event type)."""
    table: dict[tuple[str, str], list[Series]] = {}
    for one in series:
        table.setdefault((one.namespace, one.event_type), []).append(one)
    return table


def _read(data: str, series: Series) -> ExactPoint:
    dims = tuple(
        quantity.dimension_text(find(data, parse_path(path))) for path in series.group_paths
    )
    value = _value(data, series)
    if isinstance(value, ValueFault):
        return ExactPoint(series.id, None, "", dims, value.reason)
    if isinstance(value, str):
        return ExactPoint(series.id, Decimal(0), value, dims, "")
    return ExactPoint(series.id, value, "", dims, "")


def _value(data: str, series: Series) -> Decimal | str | ValueFault:
    if series.kind == "count":
        return Decimal(1)
    path = series.value_path
    assert path is not None
    if data in ("", "null"):
        return ValueFault(quantity.MISSING_DATA)
    raw = find(data, parse_path(path))
    if series.kind == "text":
        return quantity.text_value(raw, path=path)
    return quantity.parse_value(raw, path=path)
