"""Following usage: what was counted by a plan, told in the transaction that commits it."""

from collections.abc import Collection, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.kernel.usage import Usage


class Follower(Protocol):
    """Who wants to know. Each usage is told exactly once, in the order of the log."""

    async def series(self, conn: AsyncConnection) -> Collection[int]:
        """The series whose usage is wanted."""
        ...

    async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
        """Take a plan's usage, in the transaction that commits the sink's position."""
        ...

    async def erase(self, conn: AsyncConnection, namespace: str, subject: str) -> None:
        """All usage of a subject is erased from the store, just before this transaction."""
        ...


class NoFollower:
    """Nobody wants to know."""

    async def series(self, conn: AsyncConnection) -> Collection[int]:
        """None."""
        return ()

    async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
        """Nothing is told."""

    async def erase(self, conn: AsyncConnection, namespace: str, subject: str) -> None:
        """Nothing is told."""
