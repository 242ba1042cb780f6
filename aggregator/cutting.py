"""Parts of records. Pure.

A log that gives every event an offset may cut its records differently each time they are read; a
plan is made of offsets, and so stays the same.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec

from meterline.eventlog.port import Places, Record

_SPLIT = msgspec.json.Decoder(list[msgspec.Raw])
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def between(records: Iterable[Record], first: int, last: int) -> list[Record]:
    """Those that have events at offsets `first` to `last`."""
    return [one for one in records if one.first_offset <= last and one.offset >= first]


def events_between(records: Iterable[Record], first: int, last: int) -> int:
    """How many events the records have at offsets `first` to `last`."""
    return sum(
        sum(first <= offset <= last for offset in one.places.offsets)
        if one.places is not None and not first <= one.first_offset <= one.offset <= last
        else one.count
        for one in between(records, first, last)
    )


def singles(record: Record) -> list[Record]:
    """Each event as a record of its own; just the record when it cannot be taken apart."""
    places = record.places
    if places is None:
        return [record]
    try:
        events = _SPLIT.decode(record.events)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return [record]
    if len(events) != len(places.offsets):
        return [record]
    return [
        replace(
            record,
            offset=offset,
            ingested_at=moment(at),
            count=1,
            events=b"[%b]" % bytes(event),
            places=Places((offset,), (at,)),
        )
        for event, offset, at in zip(events, places.offsets, places.ingested_at_ms, strict=True)
    ]


def without(records: Sequence[Record], skipped: Collection[int]) -> list[Record]:
    """The records without the events at these offsets, and without what is no event."""
    kept = []
    for record in records:
        if record.fault is not None:
            continue
        if not skipped or not any(record.first_offset <= one <= record.offset for one in skipped):
            kept.append(record)
        elif record.places is None:
            # Batches share an offset: all of it is skipped.
            continue
        else:
            kept += [one for one in singles(record) if one.offset not in skipped]
    return kept


def last_ingested(records: Sequence[Record], last: int) -> datetime | None:
    """When the last event up to offset `last` was accepted."""
    for record in reversed(records):
        if record.first_offset > last:
            continue
        if record.places is None:
            return record.ingested_at
        pairs = zip(record.places.offsets, record.places.ingested_at_ms, strict=True)
        return moment(max(at for offset, at in pairs if offset <= last))
    return None


def moment(milliseconds: int) -> datetime:
    """An instant from milliseconds since 1970."""
    return _EPOCH + timedelta(milliseconds=milliseconds)
