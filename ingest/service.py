"""The ingest service: parse, stamp, append; it returns when the events are durable."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from ingest.encodings import decode_body
from ingest.faults import Accepted
from ingest.limits import IngestLimits
from ingest.messages import Headers
from ingest.metrics import IngestMetrics
from ingest.parse import Parser
from meterline.eventlog.port import LogWriter
from meterline.kernel.clock import Clock

_INLINE_BYTES = 512 * 1024
"""Larger bodies are parsed in a thread, so that other requests need not wait for them."""


class IngestService:
    """Takes messages of one HTTP request each into the event log."""

    def __init__(
        self, log: LogWriter, clock: Clock, limits: IngestLimits, metrics: IngestMetrics
    ) -> None:
        self.limits = limits
        self.metrics = metrics
        self._log = log
        self._clock = clock
        self._parser = Parser(limits, callers=True)
        self._own = Parser(limits)
        # One thread: it bounds the memory that large bodies take while they are unpacked.
        self._pool = ThreadPoolExecutor(1, "ingest-parse")

    async def ingest(
        self,
        namespace: str,
        headers: Headers,
        content_type: bytes | None,
        coding: str | None,
        body: bytes,
        *,
        own: bool = False,
    ) -> int:
        """Make the message's events durable, all of them or none; returns how many.

        `coding` is the content coding of `body`; `own` events are written by this server.
        Raises `InvalidEventsError`, `UnsupportedMediaError`, `PayloadTooLargeError` or
        `UnavailableError`.
        """
        parser = self._own if own else self._parser
        if coding is None and len(body) <= _INLINE_BYTES:
            accepted = parser.parse(headers, content_type, body)
            size = len(body)
        else:
            accepted, size = await asyncio.get_running_loop().run_in_executor(
                self._pool, self._decode_and_parse, parser, headers, content_type, coding, body
            )
        count = accepted.count
        if count:
            await self._log.append(namespace, self._clock(), count, accepted.events)
            self.metrics.accept(count, size)
        return count

    def close(self) -> None:
        """Release the thread."""
        self._pool.shutdown()

    def _decode_and_parse(
        self,
        parser: Parser,
        headers: Headers,
        content_type: bytes | None,
        coding: str | None,
        body: bytes,
    ) -> tuple[Accepted, int]:
        if coding is not None:
            body = decode_body(coding, body, self.limits.max_decompressed_bytes)
        return parser.parse(headers, content_type, body), len(body)
