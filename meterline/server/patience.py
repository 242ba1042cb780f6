"""Waiting at the start for services that may start later than this process."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from meterline.kernel.errors import UnavailableError

T = TypeVar("T")
logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0


async def patiently(work: Callable[[], Awaitable[T]], wait_seconds: float) -> T:
    """Do what needs a service that may start later than this process."""
    began, pause = monotonic(), _FIRST_PAUSE_SECONDS
    while True:
        try:
            return await work()
        except UnavailableError as error:
            if monotonic() - began + pause > wait_seconds:
                raise
            logger.warning("waiting for a service", extra={"reason": error.detail})
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
