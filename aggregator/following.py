"""Following usage: what was counted by a plan, told in the transaction that commits it."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Usage:
    """What a plan adds to one subject in one series, for one combination of dimensions.

    `due` is the time of events that lie ahead of the plan's clock; None for all others together.
    """

    series: int
    subject: str
    dims: tuple[str, ...]
    due: datetime | None
    value: Decimal
    count: int
    earliest: datetime
    latest: datetime


class Follower(Protocol):
    """Who wants to know. Each usage is told exactly once, in the order of the log."""

    def series(self) -> Collection[int]:
        """The series whose usage is wanted."""
        ...

    async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
        """Take a plan's usage, in the transaction that commits the sink's position."""
        ...


class NoFollower:
    """Nobody wants to know."""

    def series(self) -> Collection[int]:
        """None."""
        return ()

    async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
        """Nothing is told."""
