"""A process that opens holds of 1 until it is refused: `python -m … URL CLIENTS [unlocked]`.

It says `ready`, waits for a line, and prints how many holds it got. `unlocked` decides on what was
true before its transaction, as a server without locks would.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.holds import store
from entitlements.holds.book import Account
from entitlements.holds.model import Place
from entitlements.holds.service import HoldRequest, accepted
from meterline.db.engine import Database
from meterline.kernel.errors import UsageLimitError
from tests.support.clock import FixedClock
from tests.support.holding import NAMESPACE, HoldService, holding

PLACE = Place(NAMESPACE, "ann", "tokens")


async def client(holds: HoldService) -> int:
    got = 0
    while True:
        try:
            accepted(await holds.request(HoldRequest(PLACE, Decimal(1))))
        except UsageLimitError:
            return got
        got += 1


class Unlocked(Database):
    """Accounts are as they were before the transaction began."""

    stale: dict[Place, Account]

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        async with self.read() as conn:
            self.stale = await lock(conn, [PLACE])
        await asyncio.sleep(0.005)
        async with super().transaction() as conn:
            yield conn


lock = store.lock


async def race(url: str, clients: int, *, unlocked: bool) -> None:
    database = (Unlocked if unlocked else Database).open(url)
    if isinstance(database, Unlocked):
        forgetful = database
        statements = dict(store._LOCK)
        statements["postgresql"] = statements["postgresql"].replace(" FOR UPDATE OF a", "")
        store._LOCK = statements

        async def stale(_conn: AsyncConnection, _places: Iterable[Place]) -> dict[Place, Account]:
            return forgetful.stale

        store.lock = stale
    async with holding(database, FixedClock()) as on:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        got = await asyncio.gather(*(client(on.holds) for _ in range(clients)))
    await database.close()
    print(sum(got), flush=True)


if __name__ == "__main__":
    asyncio.run(race(sys.argv[1], int(sys.argv[2]), unlocked="unlocked" in sys.argv))
