"""The event log on Kafka: `python -m bench.kafka`.

Side by side in one run, broker included, on the same events: HTTP to the brokers'
acknowledgement; appends to the log without HTTP; and `aiokafka.send()` of each event from one
task. Then how fast all of it is read. The broker is the one of the tests (Java 17 and Maven).
"""

import argparse
import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

import uvicorn
import uvloop
from aiokafka import AIOKafkaProducer

from bench.cluster import CpuMeter
from bench.flood import bodies
from bench.ingest import Everybody, flood
from ingest.api import IngestEndpoint
from ingest.kafka import KafkaCodec
from ingest.limits import IngestLimits
from ingest.metrics import IngestMetrics
from ingest.parse import Parser
from ingest.service import IngestService
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_reader import KafkaReader
from meterline.eventlog.kafka_topic import open_topic
from meterline.eventlog.kafka_writer import KafkaWriter
from meterline.kernel.clock import system_clock
from meterline.server.serve import configured, tune_interpreter
from tests.support.kafka import KafkaBroker, find_class_path

_BATCH = b"application/cloudevents-batch+json"
_CALLERS = 32
_HEADERS = [
    ("content-type", b"application/cloudevents+json; charset=UTF-8"),
    ("meterline-namespace", b"default"),
]


@dataclass(frozen=True)
class Appends:
    """The same events as canonical batches and as the values of records."""

    size: int
    batches: Sequence[bytes]
    values: Sequence[Sequence[bytes]]

    @classmethod
    def of(cls, size: int) -> "Appends":
        """Batches of `size` events."""
        parser, codec = Parser(IngestLimits()), KafkaCodec(IngestLimits())
        found = [parser.parse([], _BATCH, body).events for body in bodies(size)]
        return cls(size, found, [codec.encode("default", events)[0] for events in found])


def options_for(bootstrap: str, topic: str, partitions: int) -> KafkaOptions:
    """A topic of one broker."""
    return KafkaOptions(
        bootstrap=bootstrap,
        topic=topic,
        group=topic,
        partitions=partitions,
        replication=1,
        min_insync_replicas=1,
    )


async def appended(options: KafkaOptions, appends: Appends, seconds: float) -> float:
    """Events a second of many callers of `append`."""
    writer = KafkaWriter(options, KafkaCodec(IngestLimits()))
    await writer.open()
    now = datetime.now(UTC)
    until = time.perf_counter() + seconds
    written = number = 0

    async def caller() -> None:
        nonlocal written, number
        while time.perf_counter() < until:
            number += 1
            events = appends.batches[number % len(appends.batches)]
            await writer.append("default", now, appends.size, events)
            written += appends.size

    begin = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(_CALLERS)))
    took = time.perf_counter() - begin
    await writer.close()
    return written / took


async def sent(options: KafkaOptions, appends: Appends, seconds: float) -> float:
    """Events a second of one task that sends each event, and waits for each batch of them."""
    producer = AIOKafkaProducer(
        bootstrap_servers=options.bootstrap,
        acks="all",
        enable_idempotence=True,
        compression_type="zstd",
    )
    await producer.start()
    written = number = 0
    begin = time.perf_counter()
    until = begin + seconds
    pending: list[asyncio.Future[object]] = []
    while time.perf_counter() < until:
        number += 1
        for value in appends.values[number % len(appends.values)]:
            pending.append(await producer.send(options.topic, value, headers=_HEADERS))
        if len(pending) >= _CALLERS * appends.size:  # as many are under way as with `append`
            await asyncio.gather(*pending)
            written += len(pending)
            pending.clear()
    await asyncio.gather(*pending)
    took = time.perf_counter() - begin
    await producer.stop()
    return (written + len(pending)) / took


async def read_all(options: KafkaOptions) -> tuple[int, float, float]:
    """Events in the topic, seconds to read them all, and seconds of this process's CPU."""
    reader = KafkaReader(options, KafkaCodec(IngestLimits()))
    await reader.open()
    ends = await reader.ends()
    found = 0
    begin, cpu = time.perf_counter(), time.process_time()

    async def drain(partition: int, end: int) -> None:
        nonlocal found
        after = 0
        while after < end:
            records = await reader.read(partition, after, 100_000)
            found += sum(record.count for record in records)
            after = records[-1].offset

    await asyncio.gather(*(drain(partition, end) for partition, end in ends.items()))
    took, used = time.perf_counter() - begin, time.process_time() - cpu
    await reader.close()
    return found, took, used


async def serve(descriptor: int, options: KafkaOptions) -> None:
    """The endpoint and the writer, as with `--role ingest`."""
    writer = KafkaWriter(options, KafkaCodec(IngestLimits()))
    await writer.open()
    service = IngestService(writer, system_clock, IngestLimits(), IngestMetrics())
    config = configured(IngestEndpoint(service, Everybody()))
    tune_interpreter()
    listener = socket.socket(fileno=descriptor)
    await uvicorn.Server(config).serve(sockets=[listener])
    await writer.close()


@contextmanager
def serving(options: KafkaOptions) -> Iterator[tuple[str, int]]:
    """The address and the process of a server of the endpoint and the log only."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        command = [sys.executable, "-m", "bench.kafka", "--serve", str(listener.fileno())]
        arguments = [options.bootstrap, options.topic, str(options.partitions)]
        process = subprocess.Popen([*command, *arguments], pass_fds=[listener.fileno()])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", process.pid
        finally:
            process.terminate()
            process.wait(30)


def measure(broker: KafkaBroker, partitions: int, seconds: float, rounds: int) -> None:
    """Take turns, so that a busy moment of the machine hits all; print the medians."""
    options = options_for(broker.bootstrap, "bench", partitions)
    costs: dict[str, list[float]] = {}
    asyncio.run(open_topic(options))
    print(f"To Kafka's acknowledgement, {partitions} partitions:\n")
    print(f"| | HTTP, 16 connections | p99 | append, {_CALLERS} callers | bare send() |", end="")
    print(" HTTP : bare | append : bare |")
    print("|---|---|---|---|---|---|---|")
    for size in (100, 1000):
        appends = Appends.of(size)
        http, late, log, bare = [], [], [], []
        with serving(options) as (url, gateway):
            flood(url, size, 16, 1.0)  # a server's first second is not its speed
            for _ in range(rounds):
                cpu = CpuMeter({"gateway": gateway, "broker": broker.pid})
                run = flood(url, size, 16, seconds)
                for name, used in cpu.used().items():
                    cost = 1e6 * used / (size * run["requests_per_second"] * seconds)
                    costs.setdefault(f"{name}, batches of {size:,}", []).append(cost)
                http.append(size * run["requests_per_second"])
                late.append(run["p99_ms"])
                log.append(uvloop.run(appended(options, appends, seconds)))
                bare.append(uvloop.run(sent(options, appends, seconds)))
        rate, direct, plain = median(http), median(log), median(bare)
        print(f"| batches of {size:,} | {rate:,.0f} events/s | {median(late):.0f} ms |"
              f" {direct:,.0f} events/s | {plain:,.0f} events/s |"
              f" {rate / plain:.2f} | {direct / plain:.2f} |", flush=True)  # fmt: skip
    print("\n| CPU of HTTP to the acknowledgement | |\n|---|---|")
    for name, found_costs in costs.items():
        print(f"| {name} | {median(found_costs):.2f} µs an event |")
    found, took, used = uvloop.run(read_all(options))
    print("\n| reading it all, one process | |\n|---|---|")
    print(f"| events | {found:,} |")
    print(f"| speed | {found / took:,.0f} events/s |")
    print(f"| CPU of the reader | {1e6 * used / found:.2f} µs an event |")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--serve", nargs=4, metavar=("FD", "BOOTSTRAP", "TOPIC", "PARTITIONS"))
    chosen = parser.parse_args()
    if chosen.serve:
        descriptor, bootstrap, topic, partitions = chosen.serve
        uvloop.run(serve(int(descriptor), options_for(bootstrap, topic, int(partitions))))
        return
    class_path = find_class_path()
    if class_path is None:
        sys.exit("it needs java and mvn for the broker")
    with KafkaBroker(class_path) as broker:
        measure(broker, chosen.partitions, chosen.seconds, chosen.rounds)


if __name__ == "__main__":
    main()
