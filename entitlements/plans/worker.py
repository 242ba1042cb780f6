"""What plans do by themselves while a server runs.

Subjects of a changed plan are brought in line, refills issued, graces ended, old events forgotten.
Any number of processes may do it at once: each step locks what it changes, and does nothing twice.
"""

import asyncio
from contextlib import suppress

import structlog

from entitlements.plans.members import MemberService
from entitlements.plans.options import PlanOptions
from entitlements.plans.payments.service import StripeService
from meterline.kernel.errors import MeterlineError

log = structlog.get_logger(__name__)

_FORGET_EVERY = 720
"""Rounds without work between two looks for events to forget."""


class PlanWorker:
    """Works until it is stopped; `wake` has it look at once."""

    def __init__(
        self, members: MemberService, payments: StripeService, options: PlanOptions
    ) -> None:
        self._members = members
        self._payments = payments
        self._options = options
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="plans")

    async def stop(self) -> None:
        """End; what is unfinished is taken up by the next process."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def wake(self) -> None:
        """Look at once: a plan was changed in this process."""
        self._due.set()

    async def run_once(self) -> bool:
        """One round; answers whether there was something to do."""
        batch = self._options.batch
        aligned = await self._members.align_some()
        return bool(aligned + await self._payments.end_graces(batch))

    async def _run(self) -> None:
        rounds = 0
        while True:
            self._due.clear()
            busy = False
            try:
                busy = await self.run_once()
                rounds += not busy
                if rounds % _FORGET_EVERY == 1 and not busy:
                    await self._payments.forget()
            except MeterlineError as error:
                log.warning("plans will be looked at again", error=error.detail)
            except Exception:
                log.exception("plans failed and will be looked at again")
            if not busy:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._due.wait(), self._options.poll_seconds)
