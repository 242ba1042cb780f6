"""Warming: live rows that do not hold any more are calculated again before anybody asks.

The first check after a change, or in a new period, would otherwise pay for a full calculation. One
row at a time, so that checks and queries are not kept waiting.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import structlog

from entitlements.services.live import BUILDING_SECONDS, LiveEntitlements
from entitlements.stores import building
from entitlements.stores.building import Cold
from meterline.db.engine import Database
from meterline.kernel.clock import Clock
from meterline.kernel.errors import MeterlineError

log = structlog.get_logger(__name__)

_PAGE = 100
_IDLE_SECONDS = 1.0


class Warmer:
    """Looks for rows that do not hold, and has them calculated."""

    def __init__(self, database: Database, live_rows: LiveEntitlements, clock: Clock) -> None:
        self._database = database
        self._live = live_rows
        self._clock = clock
        # Those that the sink cannot follow stay cold: trying once per change is enough.
        self._tried: dict[str, int] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep rows warm until `stopping` is set."""
        while not stopping.is_set():
            try:
                warmed = await self.warm_all(stopping)
            except MeterlineError as error:
                log.warning("live rows stay cold for now", error=error.detail)
                warmed = 0
            if not warmed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), _IDLE_SECONDS)

    async def warm_all(self, stopping: asyncio.Event) -> int:
        """One round over all rows that do not hold; answers how many were calculated."""
        count, after = 0, ""
        while not stopping.is_set():
            long_ago = self._clock() - timedelta(seconds=BUILDING_SECONDS)
            async with self._database.read() as conn:
                page = await building.cold(conn, after, _PAGE, long_ago)
            count += await self._warm_page(page, stopping)
            if len(page) < _PAGE:
                break
            after = page[-1].entitlement_id
        return count + await self._warm_outlived(stopping)

    async def _warm_outlived(self, stopping: asyncio.Event) -> int:
        """Rows whose period has ended; but for those that nobody used, for they are many."""
        count = 0
        while not stopping.is_set():
            async with self._database.read() as conn:
                page = await building.outlived(conn, self._clock(), _PAGE)
            if not page:
                break
            for one in page:
                if stopping.is_set():
                    break
                if not await self._warm(one):
                    # It would be found again and again.
                    async with self._database.transaction() as conn:
                        await building.abandon(conn, one.entitlement_id, one.version)
                count += 1
        return count

    async def _warm_page(self, page: Sequence[Cold], stopping: asyncio.Event) -> int:
        count = 0
        for one in page:
            if stopping.is_set():
                break
            if self._tried.get(one.entitlement_id) != one.version:
                await self._warm(one)
                count += 1
        return count

    async def _warm(self, one: Cold) -> bool:
        """Whether the row answers now."""
        self._tried[one.entitlement_id] = one.version
        now = self._clock()
        if await self._live.get(one.namespace, one.subject, one.feature_key, now) is None:
            return False
        self._tried.pop(one.entitlement_id, None)
        return True
