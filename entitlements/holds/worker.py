"""What is done for holds in the background: expiry, events that were not written, housekeeping."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from entitlements.holds.service import HoldService
from meterline.kernel.errors import MeterlineError

log = structlog.get_logger(__name__)

_SECONDS = 1.0
_HOUSEKEEPING_ROUNDS = 600


class HoldWorker:
    """Runs beside the API of every process. What two of them do twice is harmless."""

    def __init__(self, holds: HoldService, forget: Callable[[], Awaitable[int]]) -> None:
        """`forget` deletes some of what nobody needs any more, and answers how many."""
        self._holds = holds
        self._forget = forget
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="holds in the background")

    async def stop(self) -> None:
        """Finish what is under way."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def round(self) -> None:
        """Do once what is to be done."""
        await self._holds.expire()
        await self._holds.note_sent()
        await self._holds.resend()

    async def _run(self) -> None:
        rounds = 0
        while not self._stopping.is_set():
            try:
                await self.round()
                if rounds % _HOUSEKEEPING_ROUNDS == 0:
                    while not self._stopping.is_set() and await self._forget():
                        pass
            except MeterlineError as error:
                log.warning("holds are looked after later", error=error.detail)
            except Exception:
                log.exception("holds could not be looked after")
            rounds += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _SECONDS)
