"""Both ends of the log on Kafka in one object, for processes that write and read."""

from datetime import datetime

from meterline.eventlog.kafka_codec import Codec
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_reader import KafkaReader
from meterline.eventlog.kafka_writer import KafkaWriter


class KafkaLog(KafkaReader):
    """An `EventLog`."""

    def __init__(self, options: KafkaOptions, codec: Codec) -> None:
        super().__init__(options, codec)
        self.writer = KafkaWriter(options, codec)

    async def open(self) -> None:
        """Connect both ends. Raises `UnavailableError`."""
        await super().open()
        await self.writer.open()

    async def append(
        self, namespace: str, ingested_at: datetime, count: int, events: bytes
    ) -> int | None:
        """See `LogWriter.append`."""
        return await self.writer.append(namespace, ingested_at, count, events)

    async def close(self) -> None:
        """Close both ends."""
        await self.writer.close()
        await super().close()
