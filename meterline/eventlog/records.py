"""What can be done with records of any log. Pure."""

from bisect import bisect_right
from dataclasses import replace

import msgspec

from meterline.eventlog.port import Places, Record

_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


def clip(record: Record, through: int) -> Record | None:
    """The part of a record at offsets up to `through`; None when it has none.

    Where a record begins and ends can change between two reads of a log. Who reads a range again
    cuts off what lies beyond it.
    """
    if record.offset <= through:
        return record
    places = record.places
    if places is None or places.offsets[0] > through:
        return None
    count = bisect_right(places.offsets, through)
    kept = _decode_raws(record.events)[:count]
    return replace(
        record,
        offset=places.offsets[count - 1],
        count=count,
        events=b"[" + b",".join(kept) + b"]",
        places=Places(places.offsets[:count], places.ingested_at_ms[:count]),
    )
