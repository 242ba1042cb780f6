"""Recurrences as columns: anchor, interval and zone."""

from typing import Any

from sqlalchemy import Row

from meterline.kernel.periods import Recurrence, format_interval, parse_interval
from meterline.kernel.windows import load_zone


def columns_of(prefix: str, recurrence: Recurrence | None) -> dict[str, Any]:
    """The values of the columns that hold a recurrence."""
    zone = recurrence.zone if recurrence else None
    return {
        f"{prefix}_anchor": recurrence.anchor if recurrence else None,
        f"{prefix}_interval": format_interval(recurrence.interval) if recurrence else None,
        f"{prefix}_zone": zone.key if zone else None,
    }


def recurrence_of(prefix: str, row: Row[Any]) -> Recurrence | None:
    """The recurrence in a row."""
    anchor, interval, zone = (
        getattr(row, f"{prefix}_{name}") for name in ("anchor", "interval", "zone")
    )
    if anchor is None:
        return None
    return Recurrence(anchor, parse_interval(interval), load_zone(zone) if zone else None)
