"""Live values: the port to a cache of what a check needs. It affects cost, never meaning."""

from datetime import datetime
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.access import Access


class LiveValues(Protocol):
    """Answers of now for entitlements that are kept up to date elsewhere."""

    async def look_up(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """The answer if it is known, whose `as_of` the caller has to correct."""
        ...

    async def get(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """The answer for now, calculated and kept if need be; None when it is not kept here."""
        ...

    async def invalidate(self, conn: AsyncConnection, entitlement_id: str) -> None:
        """Forget what is kept of an entitlement, in the transaction that changes it."""
        ...


class NoLiveValues:
    """Keeps nothing: every answer is calculated."""

    async def look_up(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """Nothing is known."""
        return None

    async def get(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """Nothing is known."""
        return None

    async def invalidate(self, conn: AsyncConnection, entitlement_id: str) -> None:
        """Nothing to forget."""
