"""Canonical events for tests of the log, and topics for them."""

import json
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from ingest.kafka import KafkaCodec
from ingest.limits import IngestLimits
from meterline.eventlog.kafka_log import KafkaLog
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_topic import open_topic
from meterline.eventlog.port import Record
from tests.support.kafka import KafkaBroker

_MEMBERS = (
    *("id", "source", "type", "subject", "time", "datacontenttype"),
    *("data", "_raw", "data_base64", "_ext"),
)


def canonical(name: int | str, **changes: Any) -> dict[str, Any]:
    """A canonical event; None leaves a member out."""
    event = {"id": f"event-{name}", "source": "tests", "type": "t", "subject": "s"}
    found = {**event, "data": {"n": str(name)}, **changes}
    return {name: found[name] for name in _MEMBERS if found.get(name) is not None}


def batch(events: Iterable[dict[str, Any]]) -> bytes:
    """The events as a batch of the log."""
    return json.dumps(list(events), separators=(",", ":"), ensure_ascii=False).encode()


def batch_of(names: Iterable[int | str]) -> bytes:
    """A batch of plain events."""
    return batch(canonical(name) for name in names)


def events_of(records: Iterable[Record]) -> list[dict[str, Any]]:
    """The events of records, in their order."""
    return [event for record in records for event in json.loads(record.events)]


def ids_of(records: Iterable[Record]) -> list[str]:
    """The ids of the events of records, in their order."""
    return [event["id"] for event in events_of(records)]


def kafka_options(broker: KafkaBroker, **changes: Any) -> KafkaOptions:
    """Options with a topic and a group of their own."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    return KafkaOptions(
        **{
            "bootstrap": broker.bootstrap,
            "topic": name,
            "group": name,
            "partitions": 1,
            "replication": 1,
            "min_insync_replicas": 1,
            **changes,
        }
    )


def kafka_log(options: KafkaOptions) -> KafkaLog:
    """A log with the codec of the server; not open yet."""
    return KafkaLog(options, KafkaCodec(IngestLimits()))


@asynccontextmanager
async def opened_kafka_log(options: KafkaOptions) -> AsyncIterator[KafkaLog]:
    """A log, its topic made if need be."""
    await open_topic(options)
    log = kafka_log(options)
    await log.open()
    try:
        yield log
    finally:
        await log.close()
