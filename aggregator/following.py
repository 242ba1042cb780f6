"""Following usage: what was counted by a plan, told in the transaction that commits it."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.kernel.usage import Usage

Rejections = Callable[[], Awaitable[Sequence[tuple[str, str, int]]]]
"""Reads how often what was rejected: (namespace, reason, count)."""
Settling = Callable[[AsyncConnection], Awaitable[None]]
"""Settles holds, in the transaction that commits the sink's position."""


class Follower(Protocol):
    """Who wants to know. Each usage is told exactly once, in the order of the log."""

    async def series(self, conn: AsyncConnection) -> Collection[int]:
        """The series whose usage is wanted."""
        ...

    async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
        """Take a plan's usage, in the transaction that commits the sink's position."""
        ...

    async def settling(self, conn: AsyncConnection, events: Sequence[tuple[str, str]]) -> Settling:
        """Counted events whose source is `HOLD_SOURCE`, as (namespace, id).

        Asked before the transaction, on another connection; what it answers is called in it, after
        `apply`.
        """
        ...

    async def rejected(self, conn: AsyncConnection, read: Rejections) -> None:
        """Some accepted events are of no use to a meter, or to the store at all."""
        ...

    async def erase(self, conn: AsyncConnection, namespace: str, subject: str) -> None:
        """All usage of a subject is erased from the store, just before this transaction."""
        ...


async def _nothing(_conn: AsyncConnection) -> None:
    pass


class NoFollower:
    """Nobody wants to know."""

    async def series(self, conn: AsyncConnection) -> Collection[int]:
        """None."""
        return ()

    async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
        """Nothing is told."""

    async def settling(self, conn: AsyncConnection, events: Sequence[tuple[str, str]]) -> Settling:
        """Nothing is told."""
        return _nothing

    async def rejected(self, conn: AsyncConnection, read: Rejections) -> None:
        """Nothing is told."""

    async def erase(self, conn: AsyncConnection, namespace: str, subject: str) -> None:
        """Nothing is told."""
