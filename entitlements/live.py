"""Live values: the port to a cache of what a check needs. It affects cost, never meaning."""

from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.access import Access


class LiveValues(Protocol):
    """Answers of now for entitlements that are kept up to date elsewhere."""

    async def get(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """The answer for now, None when it has to be calculated."""
        ...

    async def invalidate(self, conn: AsyncConnection, entitlement_id: str) -> None:
        """Forget what is kept of an entitlement, in the transaction that changes it."""
        ...


class NoLiveValues:
    """Keeps nothing: every answer is calculated."""

    async def get(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """Nothing is known."""
        return None

    async def invalidate(self, conn: AsyncConnection, entitlement_id: str) -> None:
        """Nothing to forget."""
