"""A series: the values that meters share. Pure.

Meters of one namespace and event type that read the same value and group by the same paths share
one series, whatever they aggregate. The sink writes a row per (series, event) into `points`.
"""

from dataclasses import dataclass
from typing import Literal

from meterline.kernel.jsonpath import parse_path
from meterline.kernel.meters import Aggregation, Meter

Kind = Literal["count", "number", "text"]
"""What a point holds: nothing but its being there, a decimal, or a text to be counted once."""

State = Literal["preparing", "backfilling", "ready"]
"""While `preparing`, points that must be read exactly are missing and queries have to wait."""


@dataclass(frozen=True, slots=True)
class SeriesKey:
    """What makes two meters share a series. `group_paths` are sorted, distinct JSON paths."""

    namespace: str
    event_type: str
    kind: Kind
    value_path: str | None
    group_paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """One series and how far its points reach.

    Events of a partition at offsets up to `done_through[partition]`, or from
    `live_from[partition]` on, are in `points`; those between are still to be back-filled, except
    events marked inexact, whose points are written before the series is first seen.
    A partition that is missing from `live_from` held nothing when the series was made.
    """

    id: int
    key: SeriesKey
    state: State
    live_from: dict[int, int]
    done_through: dict[int, int]

    @property
    def namespace(self) -> str:
        return self.key.namespace

    @property
    def event_type(self) -> str:
        return self.key.event_type

    @property
    def kind(self) -> Kind:
        return self.key.kind

    @property
    def value_path(self) -> str | None:
        return self.key.value_path

    @property
    def group_paths(self) -> tuple[str, ...]:
        return self.key.group_paths

    @property
    def gaps(self) -> tuple[tuple[int, int, int], ...]:
        """What is not back-filled yet, as (partition, after offset, before offset)."""
        if self.state == "ready":
            return ()
        ranges = (
            (part, self.done_through.get(part, 0), before)
            for part, before in sorted(self.live_from.items())
        )
        return tuple(gap for gap in ranges if gap[2] - gap[1] > 1)

    @property
    def progress(self) -> float:
        """The share of offsets that is back-filled, 0 to 1; for people, not for reckoning."""
        if self.state == "ready":
            return 1.0
        total = sum(before - 1 for before in self.live_from.values())
        missing = sum(before - after - 1 for _, after, before in self.gaps)
        return 1.0 if total <= 0 else (total - missing) / total


def series_key(meter: Meter) -> SeriesKey:
    """The series that holds a meter's values."""
    kind: Kind = "number"
    if meter.aggregation is Aggregation.COUNT:
        kind = "count"
    elif meter.aggregation is Aggregation.UNIQUE_COUNT:
        kind = "text"
    paths = tuple(sorted({parse_path(path).text for path in meter.group_by.values()}))
    value_path = parse_path(meter.value_property).text if meter.value_property else None
    return SeriesKey(meter.namespace, meter.event_type, kind, value_path, paths)
