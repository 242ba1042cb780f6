"""The topics of the log: made when missing, and checked."""

import asyncio

from meterline.eventlog.kafka import KafkaClient, create_topic
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.kernel.errors import UnavailableError

_APPEAR_SECONDS = 10.0


async def open_topic(options: KafkaOptions) -> None:
    """Make the topics that are missing, and check the number of partitions.

    Can be called again, and from several processes at a time. Raises `UnavailableError`.
    """
    settings = {
        "cleanup.policy": "delete",
        "retention.ms": str(options.retention_seconds * 1000),
        "max.message.bytes": str(options.max_record_bytes),
        "min.insync.replicas": str(min(options.min_insync_replicas, options.replication)),
    }
    for name, partitions in ((options.topic, options.partitions), (options.dead_letter_topic, 1)):
        if options.create_topics:
            await create_topic(options, name, partitions, settings)
        found = await _partitions(options, name)
        if found != partitions:
            raise UnavailableError(
                f"the topic {name} has {found} partitions, and the settings say {partitions}; an"
                " event's partition follows from the number, so it can never change"
                if found
                else f"the topic {name} does not exist"
            )


async def _partitions(options: KafkaOptions, name: str) -> int:
    """How many partitions a topic has; a new one takes a moment to appear."""
    client = KafkaClient(options, name)
    try:
        await client.open()
        async with asyncio.timeout(_APPEAR_SECONDS):
            while True:
                found = await client.partitions()
                if found or not options.create_topics:
                    return found
                await asyncio.sleep(0.05)
    except TimeoutError:
        return 0
    finally:
        await client.close()
