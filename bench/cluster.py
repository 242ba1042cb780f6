"""What the benchmarks of a deployment share: backends, a filled topic, CPU by process."""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import yaml

from bench.traffic import batches, events
from ingest.kafka import KafkaCodec
from ingest.limits import IngestLimits
from ingest.parse import Parser
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_topic import open_topic
from meterline.eventlog.kafka_writer import KafkaWriter
from tests.support.clickhouse import ClickHouseBridge
from tests.support.cluster import Cluster
from tests.support.kafka import KafkaBroker, find_class_path
from tests.support.postgres import PostgresCluster, find_binaries

_BATCH = "application/cloudevents-batch+json"
_A_BATCH = 1000
_WRITERS = 16
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Backends:
    """A broker, a PostgreSQL cluster that is as durable as in production, and the bridge."""

    folder: Path
    broker: KafkaBroker
    postgres: PostgresCluster
    bridge: ClickHouseBridge

    def cluster(
        self,
        name: str,
        topic: str,
        partitions: int,
        meters: Sequence[Mapping[str, object]],
        settings: Mapping[str, str] | None = None,
        **counts: int,
    ) -> Cluster:
        """A deployment with a database and a store of its own, which reads a topic anew."""
        given = {"kafka.topic": topic, "kafka.group": name, **(settings or {})}
        none = {"gateways": 0, "sinks": 0, "apis": 0}
        folder = self.folder / name
        folder.mkdir(parents=True)
        one = Cluster(
            folder,
            self.broker.bootstrap,
            self.bridge.options(f"bench_{name}"),
            self.postgres.create_database(empty=True),
            partitions=partitions,
            settings=given,
            **{**none, **counts},
        )
        file = folder / "meterline.yaml"
        file.write_text(yaml.safe_dump({"meters": list(meters)}))
        one.environment["METERLINE_CONFIG"] = str(file)
        return one

    def pids(self) -> dict[str, int]:
        """The processes, by name."""
        return {
            "broker": self.broker.pid,
            "PostgreSQL": self.postgres.pid,
            "ClickHouse (bridge)": self.bridge.pid,
        }


@contextmanager
def backends() -> Iterator[Backends]:
    """All three, thrown away at the end; ends the program when one is not installed."""
    class_path, binaries = find_class_path(), find_binaries()
    if class_path is None or binaries is None:
        sys.exit("it needs java and mvn for the broker, and PostgreSQL's programs")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        yield Backends(
            folder,
            stack.enter_context(KafkaBroker(class_path)),
            stack.enter_context(PostgresCluster(binaries, durable=True)),
            stack.enter_context(ClickHouseBridge(folder / "clickhouse")),
        )


def topic_options(bootstrap: str, topic: str, partitions: int) -> KafkaOptions:
    """A topic of one broker."""
    return KafkaOptions(
        bootstrap=bootstrap,
        topic=topic,
        group=topic,
        partitions=partitions,
        replication=1,
        min_insync_replicas=1,
        delivery_timeout_seconds=60.0,
    )


async def fill_topic(options: KafkaOptions, count: int, *, seed: int = 1, types: int = 1) -> float:
    """Write synthetic usage as a gateway does; the mean bytes of an event, as it was sent."""
    await open_topic(options)
    writer = KafkaWriter(options, KafkaCodec(IngestLimits()))
    await writer.open()
    parser = Parser(IngestLimits())
    size = 0
    pending: set[asyncio.Task[int | None]] = set()
    for body in _bodies(count, seed, types):
        size += len(body)
        accepted = parser.parse([], _BATCH.encode(), body)
        append = writer.append("default", datetime.now(UTC), accepted.count, accepted.events)
        pending.add(asyncio.create_task(append))
        if len(pending) >= _WRITERS:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
    await asyncio.gather(*pending)
    await writer.close()
    return size / max(1, count)


def _bodies(count: int, seed: int, types: int) -> Iterator[bytes]:
    """Batches, made a part at a time: the texts of millions of events would fill the memory."""
    for number, first in enumerate(range(0, count, 50_000)):
        size = min(50_000, count - first)
        yield from batches(events(size, seed=seed + 1000 * number, types=types), _A_BATCH)


def cpu_seconds(pid: int) -> float:
    """CPU that a process and its living children have used so far."""
    total = 0.0
    for one in (pid, *_children(pid)):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        # Of itself, and of children that have ended.
        total += sum(map(int, fields[11:15])) / _TICKS
    return total


def _children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def peak_mib(pid: int) -> float:
    """The most resident memory that a process has had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


class CpuMeter:
    """CPU that processes use from now on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = {name: cpu_seconds(pid) for name, pid in self._pids.items()}
        self._begin = time.perf_counter()

    def used(self) -> dict[str, float]:
        """Seconds of CPU by name."""
        return {name: cpu_seconds(pid) - self._before[name] for name, pid in self._pids.items()}


def load_average() -> str:
    """The machine's load, to be printed beside what was measured."""
    return " ".join(f"{one:.1f}" for one in os.getloadavg())
