"""A process that opens holds of 1 until it is refused: `python -m … URL CLIENTS [unlocked]`.

It says `ready`, waits for a line, and prints how many holds it got. `unlocked` decides on what was
true before its transaction, as a server without locks would.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import Decimal
from typing import TypeVar

from entitlements.holds import groups, store
from entitlements.holds.book import Account
from entitlements.holds.memory import Memory
from entitlements.holds.model import Place
from entitlements.holds.service import HoldRequest, HoldService, accepted
from meterline.db.engine import Database
from meterline.db.steps import Steps, in_transaction, on
from meterline.kernel.errors import UsageLimitError
from tests.support.clock import FixedClock
from tests.support.holding import NAMESPACE, holding

T = TypeVar("T")
PLACE = Place(NAMESPACE, "ann", "tokens")


async def client(holds: HoldService) -> int:
    got = 0
    while True:
        try:
            accepted(await holds.request(HoldRequest(PLACE, Decimal(1))))
        except UsageLimitError:
            return got
        got += 1


async def race(url: str, clients: int, *, unlocked: bool) -> None:
    database = Database.open(url)
    if unlocked:
        _unlock(database)
    async with holding(database, FixedClock()) as on:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        got = await asyncio.gather(*(client(on.holds) for _ in range(clients)))
    await database.close()
    print(sum(got), flush=True)


def _unlock(database: Database) -> None:
    """Make decisions on accounts as they were before the transaction began."""
    known: dict[Place, Account] = {}

    def stale(places: Iterable[Place]) -> Steps[dict[Place, Account]]:
        yield from ()
        return {place: replace(known[place]) for place in places}

    async def late(where: Database, steps: Steps[T]) -> T:
        async with where.read() as conn:
            known.update(await on(conn, lock([PLACE])))
        await asyncio.sleep(0.005)
        return await in_transaction(where, steps)

    async def late_row(
        where: Database, steps: Steps[T], following: Callable[[T], Steps[T] | None]
    ) -> T:
        then: Steps[T] | None = steps
        while then is not None:
            done = await late(where, then)
            then = following(done)
        return done

    def all_of(_: Memory, places: Iterable[Place]) -> list[Place]:
        return list(places)

    Memory.unknown = all_of  # type: ignore[method-assign,assignment]
    guard = store._GUARD["postgresql"]
    store._GUARD = {"postgresql": guard.replace("a.xmin::text = w.v", "w.v IS NOT NULL")}
    lock = store.lock
    readable = {name: text.replace(" FOR UPDATE OF a", "") for name, text in store._LOCK.items()}
    store._LOCK = readable
    store.lock = stale
    groups.in_transaction = late  # type: ignore[attr-defined,assignment]
    groups.in_a_row = late_row  # type: ignore[attr-defined,assignment]


if __name__ == "__main__":
    asyncio.run(race(sys.argv[1], int(sys.argv[2]), unlocked="unlocked" in sys.argv))
