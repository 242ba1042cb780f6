"""Where changes of balances ask for checks, in the transactions that make them."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.access import Access
from entitlements.live import LiveValues
from entitlements.notifications.stores.checks import request_check
from meterline.kernel.clock import Clock


class CheckedLiveValues:
    """Live values of which each that is forgotten is looked at: every change passes here."""

    def __init__(self, live: LiveValues, clock: Clock) -> None:
        self._live = live
        self._clock = clock

    async def look_up(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """See `LiveValues.look_up`."""
        return await self._live.look_up(namespace, subject, feature_key, now)

    async def get(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """See `LiveValues.get`."""
        return await self._live.get(namespace, subject, feature_key, now)

    async def invalidate(self, conn: AsyncConnection, entitlement_id: str) -> None:
        """See `LiveValues.invalidate`."""
        await self._live.invalidate(conn, entitlement_id)
        await request_check(conn, entitlement_id, self._clock())
