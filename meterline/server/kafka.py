"""Opens the ends of the event log on Kafka that a role needs, and says how they are."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ingest.kafka import KafkaCodec
from ingest.limits import IngestLimits
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_reader import KafkaReader
from meterline.eventlog.kafka_topic import open_topic
from meterline.eventlog.kafka_writer import KafkaWriter
from meterline.server.log import Log
from meterline.server.patience import patiently
from meterline.server.roles import Parts


@asynccontextmanager
async def opened_kafka(
    options: KafkaOptions, limits: IngestLimits, parts: Parts, wait_seconds: float
) -> AsyncIterator[Log]:
    """A writer where events are taken, a reader where they are stored or waited for."""
    codec = KafkaCodec(limits)
    async with AsyncExitStack() as stack:
        await patiently(lambda: open_topic(options), wait_seconds)
        writer = reader = None
        if parts.ingests:
            writer = KafkaWriter(options, codec)
            stack.push_async_callback(writer.close)
            await patiently(writer.open, wait_seconds)
        if parts.stores or parts.answers:
            reader = KafkaReader(options, codec)
            stack.push_async_callback(reader.close)
            await patiently(reader.open, wait_seconds)

        async def check() -> None:
            for end in (writer, reader):
                if end is not None:
                    await end.check()

        yield Log(writer, reader, check, KafkaMetrics(writer, reader))


class KafkaMetrics(Collector):
    """A Prometheus collector over what the ends count."""

    def __init__(self, writer: KafkaWriter | None, reader: KafkaReader | None) -> None:
        self._writer = writer
        self._reader = reader

    def collect(self) -> Iterator[Metric]:
        """The metrics, as Prometheus wants them."""
        if self._writer is not None:
            yield GaugeMetricFamily(
                "meterline_kafka_waiting_bytes",
                "Events that wait for the brokers to acknowledge them.",
                value=self._writer.buffered_bytes,
            )
            yield CounterMetricFamily(
                "meterline_kafka_rebuilds",
                "Producers that were made anew after the brokers were away.",
                value=self._writer.rebuilds,
            )
        if self._reader is not None:
            yield CounterMetricFamily(
                "meterline_kafka_rebalances",
                "Times that this process was given other partitions.",
                value=self._reader.rebalances,
            )
            yield CounterMetricFamily(
                "meterline_kafka_forwarded",
                "Events of others that were sent on to their home partition.",
                value=self._reader.forwarded,
            )
