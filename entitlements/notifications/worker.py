"""The task that keeps checks and deliveries going while a server runs."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta

import structlog

from entitlements.notifications.courier import Courier
from entitlements.notifications.evaluator import Evaluator
from entitlements.notifications.model import ValueReader
from entitlements.notifications.options import NotificationOptions
from entitlements.notifications.sender import Sender
from entitlements.notifications.stores import checks, outbox
from meterline.db.engine import Database
from meterline.kernel.clock import Clock

log = structlog.get_logger(__name__)

_PATIENCE_SECONDS = 5.0
_HOUSEKEEPING_SECONDS = 600.0


class NotificationWorker:
    """Runs an evaluator, a courier and a housekeeper until it is stopped."""

    def __init__(
        self,
        database: Database,
        reader: ValueReader,
        sender: Sender,
        clock: Clock,
        options: NotificationOptions | None = None,
    ) -> None:
        self._options = options or NotificationOptions()
        self._database = database
        self._clock = clock
        self._evaluator = Evaluator(database, reader, clock, self._options)
        self._courier = Courier(database, sender, clock, self._options, on_free=self.wake)
        self._due = asyncio.Event()
        self._to_send = asyncio.Event()
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin."""
        poll = self._options.poll_seconds
        self._tasks = [
            asyncio.create_task(self._repeat(self._evaluate, self._due, poll)),
            asyncio.create_task(self._repeat(self._courier.run_once, self._to_send, poll)),
            asyncio.create_task(self._repeat(self._tidy, asyncio.Event(), _HOUSEKEEPING_SECONDS)),
        ]

    async def stop(self) -> None:
        """End; what is unfinished is taken up by the next process."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._courier.stop(_PATIENCE_SECONDS)

    def wake(self) -> None:
        """Look at once: something was asked for in this process."""
        self._due.set()
        self._to_send.set()

    async def _evaluate(self) -> bool:
        found = await self._evaluator.run_once()
        if found:
            self._to_send.set()
        return found

    async def _tidy(self) -> bool:
        """Forget some of what is old."""
        now = self._clock()
        before = now - timedelta(days=self._options.retention_days)
        async with self._database.transaction() as conn:
            events = await outbox.forget(conn, before)
            keys = await checks.forget_fired(conn, now)
        return bool(events or keys)

    async def _repeat(
        self, work: Callable[[], Awaitable[bool]], wake: asyncio.Event, seconds: float
    ) -> None:
        while not self._stopping.is_set():
            wake.clear()
            try:
                busy = await work()
            except Exception:
                log.exception("notifications failed and will be tried again")
                busy = False
            if not busy:
                with suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), seconds)
