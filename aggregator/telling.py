"""What a plan tells who follows usage, read from the store before the transaction that tells it.

The store takes its time, and on SQLite nobody else can write to the database while that transaction
lasts. What is staged of a plan does not change any more, so it says the same whenever it is read;
only who wants to know is not settled before, and is looked at again in the transaction.
"""

from collections.abc import Callable, Collection, Coroutine
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.following import Follower, Settling
from aggregator.staging import Staged, Staging
from aggregator.stores.state import Plan
from meterline.db.engine import Database
from meterline.kernel.usage import HOLD_SOURCE, Usage

Commit = Callable[[AsyncConnection], Coroutine[Any, Any, None]]


class UnreadError(Exception):
    """Others follow by now, whose usage was not read: read it, and begin the transaction again."""

    def __init__(self, series: Collection[int]) -> None:
        super().__init__(f"usage of {len(series)} series was not read")
        self.series = series


class Telling:
    """A plan's usage, by series, and the holds that its events settle. Each is read once."""

    def __init__(
        self, staging: Staging, staged: Staged, plan: Plan, database: Database, follower: Follower
    ) -> None:
        self._staging = staging
        self._staged = staged
        self._plan = plan
        self._database = database
        self._follower = follower
        self._known = set[int]()
        self._usages: list[Usage] = []
        self._settle: Settling | None = None

    async def prepare(self) -> None:
        """Read all that the transaction will ask for, unless others follow by then."""
        async with self._database.read() as conn:
            wanted = await self._follower.series(conn)
        await self.read(set(self._plan.series).intersection(wanted))
        if not self._staged.settling:
            return
        settled = await self._staging.settled(HOLD_SOURCE, self._staged.judged)
        if settled:
            async with self._database.read() as conn:
                self._settle = await self._follower.settling(conn, settled)

    async def read(self, series: Collection[int]) -> None:
        """Read what the plan's points of these series add up to."""
        if series:
            self._usages += await self._staging.usages(series, self._plan.planned_at)
            self._known.update(series)

    async def read_all(self) -> None:
        """Read it of all series, whoever follows."""
        await self.read(set(self._plan.series) - self._known)

    async def commit(self, commit: Commit, *, in_one_go: bool) -> None:
        """Have a transaction commit the plan that calls `tell`.

        `in_one_go`: it waits for nothing but the database.
        """
        while True:
            try:
                if in_one_go:
                    await self._database.run(commit)
                else:
                    async with self._database.transaction() as conn:
                        await commit(conn)
            except UnreadError as unread:
                await self.read(unread.series)
            else:
                return

    async def tell(self, conn: AsyncConnection) -> None:
        """Tell who follows, in the transaction that commits the plan; or `UnreadError`."""
        # Who begins to follow a series locks the partitions' rows: it does so before this
        # transaction, which then tells it, or after it, when the position says that it must read
        # the store.
        wanted = set(self._plan.series).intersection(await self._follower.series(conn))
        if not wanted <= self._known:
            raise UnreadError(wanted - self._known)
        if wanted:
            usages = [usage for usage in self._usages if usage.series in wanted]
            await self._follower.apply(conn, usages)
        if self._settle is not None:
            await self._settle(conn)
