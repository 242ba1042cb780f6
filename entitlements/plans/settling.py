"""What checks have set aside goes back when the calls' usage is counted, and not before.

So a limit is never passed in between. What is lost here (a process ends, too much waits) goes back
when its hold expires: too late, and never too early.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog

from entitlements.builtin import COST, TOKENS
from entitlements.plans.checks import Holds
from meterline.kernel.errors import MeterlineError

log = structlog.get_logger(__name__)

_MAX_WAITING = 100_000
_GROUP = 256
_PAUSE_SECONDS = 1.0
_FEATURES = (TOKENS, COST)


class Settled(NamedTuple):
    """A check whose call was recorded."""

    namespace: str
    subject: str
    check_id: str


class Settling:
    """Gives holds of checks back. `counted` returns when all that was recorded is counted."""

    def __init__(self, holds: Holds, counted: Callable[[], Awaitable[None]]) -> None:
        self._holds = holds
        self._counted = counted
        self._waiting: list[Settled] = []
        self._some = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="holds of recorded calls")

    async def stop(self) -> None:
        """End, after what waits, as long as its usage is counted soon."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        try:
            await self._settle()
        except MeterlineError as error:
            log.warning("holds of checks will expire instead", error=error.detail)

    def recorded(self, one: Settled) -> None:
        """The call of a check is durable; its usage will be counted."""
        if len(self._waiting) < _MAX_WAITING:
            self._waiting.append(one)
            self._some.set()

    async def _run(self) -> None:
        while True:
            await self._some.wait()
            self._some.clear()
            try:
                await self._settle()
            except MeterlineError as error:
                log.warning("holds of checks wait for usage", error=error.detail)
                self._some.set()
                await asyncio.sleep(_PAUSE_SECONDS)
            except Exception:
                log.exception("holds of checks were not given back")
                self._some.set()
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _settle(self) -> None:
        """Give back what waits now; what fails waits on."""
        if not self._waiting:
            return
        count = len(self._waiting)
        await self._counted()
        while count > 0:
            group = self._waiting[: min(_GROUP, count)]
            await self._release(group)
            del self._waiting[: len(group)]
            count -= len(group)

    async def _release(self, group: Sequence[Settled]) -> None:
        await asyncio.gather(
            *(
                self._holds.release(one.namespace, one.subject, key, f"{one.check_id}.{key}")
                for one in group
                for key in _FEATURES
            )
        )
