"""The reading end of the log on Kafka."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from meterline.eventlog.kafka import LATEST, KafkaClient, Membership, OutOfRangeError
from meterline.eventlog.kafka_assemble import Assembler
from meterline.eventlog.kafka_codec import Codec, Headers
from meterline.eventlog.kafka_feed import Feed
from meterline.eventlog.kafka_options import KafkaOptions
from meterline.eventlog.kafka_rows import Row, Run
from meterline.eventlog.kafka_sending import Sending
from meterline.eventlog.port import Changed, LogGapError, Record
from meterline.kernel.errors import UnavailableError

log = structlog.get_logger(__name__)

_TICK_SECONDS = 0.5
_CHECK_SECONDS = 2.0
_COMMIT_SECONDS = 5.0
_JOIN_SECONDS = 5.0
_REASON_CHARACTERS = 1_000


class KafkaReader:
    """A `LogReader` over the partitions that the consumer group gives to it."""

    def __init__(self, options: KafkaOptions, codec: Codec) -> None:
        self.rebalances = 0
        """How often the partitions of this reader were shared out anew."""
        self.forwarded = 0
        """Records of other producers that were sent on to their home partition."""
        self._options = options
        self._codec = codec
        self._client = KafkaClient(options, options.topic)
        # A broker answers who joins a group when all others have let go: that takes longer than
        # any other request may.
        patience = options.rebalance_timeout_seconds + _JOIN_SECONDS
        self._group = KafkaClient(replace(options, request_timeout_seconds=patience), options.topic)
        self._group_open = False
        self._sending = Sending(options)
        self._sends = False
        self._opening = asyncio.Lock()
        self._feeds: dict[int, Feed] = {}
        self._skipped: dict[int, int] = {}
        self._changed: Changed | None = None
        self._changing = asyncio.Lock()
        self._membership: Membership | None = None
        self._task: asyncio.Task[None] | None = None
        self._done: dict[int, int] = {}
        self._committed: dict[int, int] = {}

    async def open(self) -> None:
        """Connect; the topic must be there (`open_topic`). Raises `UnavailableError`."""
        await self._client.open()

    async def check(self) -> None:
        """Raises `UnavailableError` unless every partition can be reached now."""
        partitions = range(self._options.partitions)
        await self._client.offsets(partitions, LATEST, _CHECK_SECONDS)

    async def subscribe(self, changed: Changed) -> None:
        """See `LogReader.subscribe`. Joins the group; until that is done, no partition is ours."""
        self._changed = changed
        await changed(frozenset())
        self._task = asyncio.create_task(self._take_part(), name="kafka-group")

    def partition_count(self) -> int:
        """See `LogReader.partition_count`."""
        return self._options.partitions

    async def read(self, partition: int, after: int, max_events: int) -> Sequence[Record]:
        """See `LogReader.read`."""
        return await self._feed(partition).read(self._start(partition, after), max_events)

    async def wait(self, partition: int, after: int, timeout_seconds: float) -> bool:
        """See `LogReader.wait`."""
        return await self._feed(partition).wait(self._start(partition, after), timeout_seconds)

    async def end(self, partition: int) -> int:
        """See `LogReader.end`."""
        return (await self._client.offsets([partition], LATEST))[partition]

    async def ends(self) -> Mapping[int, int]:
        """See `LogReader.ends`."""
        return await self._client.offsets(range(self._options.partitions), LATEST)

    async def count(self, partition: int, after: int) -> int:
        """See `LogReader.count`."""
        return max(0, await self.end(partition) - after)

    async def trim(self, partition: int, through: int) -> None:
        """See `LogReader.trim`: tells the group, soon, so that tools can show its lag.

        The brokers delete records by age; positions are the sink's own.
        """
        self._done[partition] = through

    async def skip(self, partition: int, through: int) -> None:
        """See `LogReader.skip`."""
        end = await self.end(partition)
        if through > end:
            raise LogGapError(
                f"partition {partition} of {self._options.topic} ends at {end}; it cannot go on"
                f" after {through}. Use a new topic and a new data set, or restore the topic"
            )
        self._skipped[partition] = through

    async def dead_letter(self, record: Record, reason: str) -> None:
        """See `LogReader.dead_letter`: copies the original records, and says why and from where."""
        rows = await self._originals(record)
        runs = [self._letter(row, record.partition, reason) for row in rows]
        if not runs:
            headers: Headers = self._why(record.partition, record.offset - 1, reason)
            timestamp = max(0, round(record.ingested_at.timestamp() * 1000))
            runs = [Run(timestamp, headers, [record.events])]
        await self._send(self._options.dead_letter_topic, 0, runs)

    async def close(self) -> None:
        """See `LogReader.close`. Leaves the group, so that others take over at once."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        await self._leave()
        await self._group.close()
        for feed in self._feeds.values():
            await feed.stop()
        self._feeds.clear()
        await self._sending.close()
        await self._client.close()

    # The group.

    async def _take_part(self) -> None:
        """Be a member of the group, whatever happens to the brokers or to aiokafka."""
        while True:
            try:
                if not self._group_open:
                    await self._group.open()
                    self._group_open = True
                if self._membership is None:
                    self._membership = Membership(self._group, self._options, self._tell)
                await asyncio.sleep(_TICK_SECONDS)
                self._membership.check()
                await self._commit()
            except UnavailableError as error:
                log.warning("the consumer group is disturbed", reason=error.detail)
                await asyncio.sleep(_TICK_SECONDS)
                if self._membership is not None and not self._membership.alive:
                    await self._leave()
                    await self._tell(frozenset())

    async def _leave(self) -> None:
        await self._commit()
        membership, self._membership = self._membership, None
        if membership is not None:
            await membership.close()

    async def _tell(self, partitions: frozenset[int]) -> None:
        """Pass a new share on; who is told lets go of the others before this returns."""
        foreign = {one for one in partitions if one >= self._options.partitions}
        if foreign:
            log.error(
                "the topic has got more partitions; what is in them is not read",
                partitions=sorted(foreign),
            )
        mine = partitions - foreign
        async with self._changing:
            self.rebalances += bool(mine)
            try:
                async with asyncio.timeout(self._options.rebalance_timeout_seconds):
                    if self._changed is not None:
                        await self._changed(mine)
            except Exception:
                log.exception("a new share of partitions was not taken", partitions=sorted(mine))
                if self._membership is not None:
                    self._membership.rejoin()
            await self._commit()
            for partition in [one for one in self._feeds if one not in mine]:
                self._done.pop(partition, None)
                self._committed.pop(partition, None)
                await self._feeds.pop(partition).stop()

    async def _commit(self) -> None:
        """Tell the group how far its partitions are done with."""
        news = {
            partition: offset
            for partition, offset in self._done.items()
            if self._committed.get(partition) != offset
        }
        if not news or self._membership is None:
            return
        try:
            async with asyncio.timeout(_COMMIT_SECONDS):
                await self._membership.commit(news)
        except (UnavailableError, TimeoutError) as error:
            # Only for those who watch; the sink has its position elsewhere.
            log.debug("the group was not told its positions", reason=str(error))
        else:
            self._committed.update(news)

    # Reading.

    def _start(self, partition: int, after: int) -> int:
        return max(after, self._skipped.get(partition, 0))

    def _feed(self, partition: int) -> Feed:
        feed = self._feeds.get(partition)
        if feed is None:
            options = self._options
            assembler = Assembler(
                self._codec, partition, options.partitions, options.default_namespace
            )
            feed = Feed(self._client, assembler, partition, options, self._forward, self._room)
            self._feeds[partition] = feed
        return feed

    def _room(self) -> int:
        return self._options.prefetch_bytes // max(1, len(self._feeds))

    async def _forward(self, strays: Sequence[tuple[int, Row]]) -> None:
        shares: dict[int, list[Run]] = {}
        for partition, row in strays:
            run = Run(_timestamp(row), row.headers, [row.value], row.key)
            shares.setdefault(partition, []).append(run)
        for partition, runs in shares.items():
            await self._send(self._options.topic, partition, runs)
        self.forwarded += len(strays)

    async def _send(self, topic: str, partition: int, runs: Sequence[Run]) -> None:
        async with self._opening:
            if not self._sends:
                await self._sending.open()
                self._sends = True
        await self._sending.send(topic, partition, runs)

    # Dead letters.

    async def _originals(self, record: Record) -> list[Row]:
        """The rows that a record was made of, as far as the log still has them."""
        places = record.places
        wanted = {offset - 1 for offset in (places.offsets if places else [record.offset])}
        found: list[Row] = []
        at, lane = min(wanted), f"dead-letters-{record.partition}"
        try:
            while at <= max(wanted):
                fetched = await self._client.fetch(record.partition, at, lane)
                found += [row for row in fetched.rows if row.offset in wanted]
                if fetched.after == at:
                    break
                at = fetched.after
        except OutOfRangeError:
            log.warning("the original of a dead letter is gone", partition=record.partition)
        return found

    def _letter(self, row: Row, partition: int, reason: str) -> Run:
        headers = [*row.headers, *self._why(partition, row.offset, reason)]
        return Run(_timestamp(row), headers, [row.value or b""], row.key)

    def _why(self, partition: int, offset: int, reason: str) -> list[tuple[str, bytes | None]]:
        return [
            ("meterline-dead-letter-reason", reason[:_REASON_CHARACTERS].encode()),
            ("meterline-dead-letter-topic", self._options.topic.encode()),
            ("meterline-dead-letter-partition", b"%d" % partition),
            ("meterline-dead-letter-offset", b"%d" % offset),
        ]


def _timestamp(row: Row) -> int:
    return max(0, row.timestamp or 0)
