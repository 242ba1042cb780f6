"""Parts of records, and records of odd rows."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from ingest.kafka import KafkaCodec
from ingest.limits import IngestLimits
from meterline.eventlog.kafka_assemble import Assembler
from meterline.eventlog.kafka_codec import Headers
from meterline.eventlog.port import Places, Record
from meterline.eventlog.records import clip
from tests.support.events import batch_of, canonical, ids_of

NOW = datetime(2026, 11, 20, tzinfo=UTC)


@given(st.sets(st.integers(1, 60), min_size=1, max_size=20), st.integers(0, 70))
def test_a_clipped_record_has_just_the_events_up_to_there(offsets: set[int], through: int) -> None:
    places = sorted(offsets)
    times = [offset * 10 for offset in places]
    record = Record(3, places[-1], "ns", NOW, len(places), batch_of(places), Places(places, times))
    part = clip(record, through)
    kept = [offset for offset in places if offset <= through]
    if not kept:
        assert part is None
        return
    assert part is not None
    assert ids_of([part]) == [f"event-{offset}" for offset in kept]
    assert (part.offset, part.count, part.first_offset) == (kept[-1], len(kept), kept[0])
    assert part.places is not None
    assert list(part.places.offsets) == kept
    assert list(part.places.ingested_at_ms) == [offset * 10 for offset in kept]


def test_a_record_of_one_offset_is_whole_or_not_there() -> None:
    record = Record(0, 5, "ns", NOW, 2, batch_of([1, 2]))
    assert clip(record, 5) is record
    assert clip(record, 4) is None


@dataclass(frozen=True)
class OddRow:
    offset: int
    timestamp: int | None
    key: bytes | None
    value: bytes | None
    headers: Headers


def test_timestamps_that_are_no_times_do_no_harm() -> None:
    headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
    stamps = [None, -1, 1 << 62, 5]
    rows = [
        OddRow(
            at, stamp, None, json.dumps({"specversion": "1.0", **canonical(at)}).encode(), headers
        )
        for at, stamp in enumerate(stamps)
    ]
    assembler = Assembler(KafkaCodec(IngestLimits()), 0, 1, "default")
    [record] = assembler.assemble(rows).records
    assert record.places is not None
    assert list(record.places.ingested_at_ms) == [0, 0, 253_402_300_799_999, 5]
    assert ids_of([record]) == [f"event-{at}" for at in range(4)]
    assert assembler.assemble(rows[:1]).records[0].ingested_at.year == 1970
