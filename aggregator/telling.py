"""What a plan tells who follows usage, read from the store before the transaction that tells it.

The store takes its time, and on SQLite nobody else can write to the database while that transaction
lasts. What is staged of a plan does not change any more, so it says the same whenever it is read;
only who wants to know is not settled before, and is looked at again in the transaction.
"""

from collections.abc import Collection

from aggregator.following import Follower, Settling
from aggregator.staging import Staged, Staging
from aggregator.stores.state import Plan
from meterline.db.engine import Database
from meterline.kernel.usage import HOLD_SOURCE, Usage


class Telling:
    """A plan's usage, by series, and the holds that its events settle. Each is read once."""

    def __init__(self, staging: Staging, staged: Staged, plan: Plan) -> None:
        self._staging = staging
        self._staged = staged
        self._plan = plan
        self._known = set[int]()
        self._usages: list[Usage] = []
        self.settle: Settling | None = None
        """Settles the holds; None when there are none."""

    async def prepare(self, database: Database, follower: Follower) -> None:
        """Read all that the transaction will ask for, unless others follow by then."""
        async with database.read() as conn:
            wanted = await follower.series(conn)
        await self.usages(set(self._plan.series).intersection(wanted))
        if not self._staged.settling:
            return
        settled = await self._staging.settled(HOLD_SOURCE, self._staged.judged)
        if settled:
            async with database.read() as conn:
                self.settle = await follower.settling(conn, settled)

    async def usages(self, series: Collection[int]) -> list[Usage]:
        """What the plan's points of these series add up to."""
        missing = set(series) - self._known
        if missing:
            self._usages += await self._staging.usages(missing, self._plan.planned_at)
            self._known |= missing
        return [usage for usage in self._usages if usage.series in series]
