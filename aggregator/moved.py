"""Whether what was moved into a store is what the store has that it came from: figures of each.

Figures are of the rows that were moved alone, whatever was added since. Besides what people want to
see they have a digest of every column, so that equal figures are equal rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aggregator.series import Series
from aggregator.stores.engine import Engine
from aggregator.stores.state import MOVED
from meterline.kernel.instants import to_micros
from meterline.kernel.meters import Aggregation, Meter
from meterline.kernel.quantity import average

_VALUES = {
    Aggregation.SUM: "toString(sum(toDecimal256(value, 18)))",
    Aggregation.COUNT: "toString(count())",
    # Divided in Python, as queries do it.
    Aggregation.AVG: "toString(sum(toDecimal256(value, 18)))",
    Aggregation.MIN: "toString(min(value))",
    Aggregation.MAX: "toString(max(value))",
    Aggregation.UNIQUE_COUNT: "toString(uniqExact(text))",
    Aggregation.LATEST: "toString(argMax(value, (time, off, idx)))",
}
_EVENT = (
    "off, idx, status, inexact, id, source, type, subject, time, time_given, datacontenttype,"
    " data, data_base64, ext, ingested_at, stored_at"
)


@dataclass(frozen=True, slots=True)
class Events:
    """Events of a namespace."""

    counted: int
    conflicts: int
    digest: int


@dataclass(frozen=True, slots=True)
class Keys:
    """What keeps events from counting twice."""

    count: int
    digest: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What a meter says of all times."""

    value: Decimal | None
    """None where it has no events."""
    events: int
    subjects: int
    faults: int
    digest: int


class Side:
    """One of the two stores: that which was moved (`moved`), or that which it was moved to."""

    def __init__(self, engine: Engine, *, moved: bool) -> None:
        self._engine = engine
        self._rows = f"part = {MOVED}" if moved else f"part != {MOVED}"
        # Keys of events that came later have an offset, and a partition of the log.
        self._keys = f"(off = 0 OR part = {MOVED})" if moved else "1"

    async def events(self) -> Mapping[str, Events]:
        """By namespace."""
        found = await self._engine.query(
            f"SELECT ns, countIf(status = 0), countIf(status != 0), sum(sipHash64({_EVENT}))"
            f" FROM events WHERE {self._rows} GROUP BY ns ORDER BY ns"
        )
        return {ns: Events(counted, conflicts, digest) for ns, counted, conflicts, digest in found}

    async def keys(self) -> Keys:
        """All of them."""
        found = await self._engine.query(
            f"SELECT count(), sum(sipHash64(h, content)) FROM keys WHERE {self._keys}"
        )
        return Keys(*found[0])

    async def figures(self, meter: Meter, series: Series) -> Figures:
        """A meter's figures, by the points of its series, which must be ready."""
        value = _VALUES[meter.aggregation]
        since, params = "", {}
        if meter.event_from is not None:
            since = " AND time >= fromUnixTimestamp64Micro({since:Int64}, 'UTC')"
            params = {"since": to_micros(meter.event_from)}
        (points,) = await self._engine.query(
            f"SELECT {value}, count(), uniqExact(subject),"
            " sum(sipHash64(off, idx, subject, time, value, text, dims))"
            f" FROM points WHERE series = {series.id} AND {self._rows}{since}",
            params,
        )
        (faults,) = await self._engine.query(
            "SELECT count(), sum(sipHash64(off, idx, reason))"
            f" FROM faults WHERE series = {series.id} AND {self._rows}"
        )
        return _figures(meter, points, faults)


def _figures(meter: Meter, points: Sequence[Any], faults: Sequence[Any]) -> Figures:
    text, count, subjects, digest = points
    value = Decimal(text) if count else None
    if value is not None and meter.aggregation is Aggregation.AVG:
        value = average(value, count)
    return Figures(value, count, subjects, faults[0], (digest + faults[1]) % (1 << 64))
