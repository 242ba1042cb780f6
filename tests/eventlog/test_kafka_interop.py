"""Readers and producers of others, unmodified: kcat, and the JavaScript CloudEvents SDK."""

import asyncio
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from meterline.eventlog.kafka_options import KafkaOptions
from tests.support.environments import node_with
from tests.support.events import batch, canonical, events_of, kafka_options, opened_kafka_log
from tests.support.kafka import KafkaBroker
from tests.support.parts import require_program

NOW = datetime(2026, 11, 20, tzinfo=UTC)
_FOLDER = Path(__file__).parents[1] / "kafka" / "js"
# The JavaScript SDK stumbles over structured events without a time.
TIME = "2026-11-20T10:00:00.000Z"
WRITTEN = [
    canonical("1", time=TIME, data={"n": 'é " \\ \n', "tokens": 12}),
    canonical(
        "ü", time=TIME, _ext={"tenantid": "x", "flag": True, "number": 7, "dataschema": "urn:x"}
    ),
    canonical("3", time=TIME, data=None),
    canonical("4", time=TIME, data=None, _raw="[1,2]"),
    canonical("5", time=TIME, data=None, _raw='"text"', datacontenttype="text/plain"),
    canonical("6", time=TIME, data=None, data_base64="AAEC"),
]


def wire(event: dict[str, Any]) -> dict[str, Any]:
    """A canonical event as CloudEvents JSON has it."""
    found = {"specversion": "1.0", **event, **event.get("_ext", {})}
    if "_raw" in found:
        found["data"] = json.loads(found["_raw"])
    return {name: value for name, value in found.items() if not name.startswith("_")}


@pytest.fixture(scope="module")
def node() -> str:
    """The path of node, with the packages of the lock installed."""
    return node_with(_FOLDER)


async def run(*command: str, input: str = "") -> str:
    """What a program writes."""

    def call() -> str:
        done = subprocess.run(
            command, cwd=_FOLDER, input=input, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return await asyncio.to_thread(call)


async def test_kcat_reads_the_events_unchanged(kafka_broker: KafkaBroker) -> None:
    kcat = require_program("kcat")
    options = kafka_options(kafka_broker)
    async with opened_kafka_log(options) as log:
        await log.append("acme", NOW, len(WRITTEN), batch(WRITTEN))
    form = r"%h\t%T\t%s\n"
    arguments = ["-C", "-b", options.bootstrap, "-t", options.topic, "-e", "-q", "-f", form]
    printed = await run(kcat, *arguments, "-X", "check.crcs=true")
    rows = [row.split("\t") for row in printed.splitlines()]
    assert [json.loads(value) for _, _, value in rows] == [wire(event) for event in WRITTEN]
    assert {(headers, time) for headers, time, _ in rows} == {
        (
            "content-type=application/cloudevents+json; charset=UTF-8,meterline-namespace=acme",
            str(round(NOW.timestamp() * 1000)),
        )
    }


async def test_the_javascript_sdk_reads_the_events_unchanged(
    kafka_broker: KafkaBroker, node: str
) -> None:
    # kafkajs unpacks gzip by itself; for zstd it wants a plug-in.
    options = kafka_options(kafka_broker, compression="gzip")
    async with opened_kafka_log(options) as log:
        await log.append("acme", NOW, len(WRITTEN), batch(WRITTEN))
    printed = await run(
        node, "interop.mjs", "read", options.bootstrap, options.topic, str(len(WRITTEN))
    )
    lines = [json.loads(line) for line in printed.splitlines()]
    assert {line["namespace"] for line in lines} == {"acme"}
    for line in lines:
        assert line["event"].pop("partitionkey") is None  # the SDK adds the record's key
    assert [line["event"] for line in lines] == [wire(event) for event in WRITTEN]


async def write_with_node(node: str, options: KafkaOptions, events: list[Any]) -> None:
    arguments = ["interop.mjs", "write", options.bootstrap, options.topic]
    await run(node, *arguments, input=json.dumps(events))


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_events_of_the_javascript_sdk_are_read(
    kafka_broker: KafkaBroker, node: str, mode: str
) -> None:
    options = kafka_options(kafka_broker, partitions=3)
    event: dict[str, Any] = {"type": "t", "source": "/js", "subject": "s", "time": TIME}
    json_type = {"datacontenttype": "application/json"}
    sent: list[dict[str, Any]] = [
        {**event, **json_type, "id": "1", "data": {"n": 1, "é": "\U0001f600"}, "tenantid": "x"},
        {**event, **json_type, "id": "2", "data": {"n": 2}},
        {**event, "id": "3", "data": "plain", "datacontenttype": "text/plain"},
    ]
    async with opened_kafka_log(options) as log:
        await write_with_node(node, options, [{"mode": mode, "event": one} for one in sent])
        found: dict[str, Any] = {}
        async with asyncio.timeout(30):
            # It chose the partitions by itself, so most come by way of another partition.
            positions = dict.fromkeys(range(3), 0)
            while len(found) < 3:
                for partition, after in positions.items():
                    for record in await log.read(partition, after, 100):
                        assert record.fault is None
                        found |= {one["id"]: one for one in events_of([record])}
                        positions[partition] = record.offset
        for one in sent:
            read = found[one["id"]]
            assert {name: read[name] for name in event} == event
            data = one["data"]
            assert (read["data"] if isinstance(data, dict) else json.loads(read["_raw"])) == data
        assert found["1"]["_ext"] == {"tenantid": "x"}
