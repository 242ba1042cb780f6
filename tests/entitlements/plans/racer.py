"""A process that asks a rate limit until it is refused: `python -m … URL CLIENTS [unlocked]`.

It says `ready`, waits for a line, and prints how many requests it got. `unlocked` decides on what
was true before its transaction, as a server without locks would.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from entitlements.plans.limiter import RateLimiter
from entitlements.plans.options import PlanOptions
from entitlements.plans.rates import RateLimits
from entitlements.plans.stores import rates as store
from meterline.db.engine import Database
from meterline.kernel.clock import system_clock

LIMITS = RateLimits((None, 500, 1_000), None)


async def client(limiter: RateLimiter, number: int) -> int:
    got = 0
    while (await limiter.admit("default", "ann", LIMITS, 0, f"{number}")).admitted:
        got += 1
    return got


async def race(url: str, clients: int, *, unlocked: bool) -> None:
    database = Database.open(url)
    if unlocked:
        locking = store.load

        async def load(conn: Any, keys: Sequence[store.Key], *, lock: bool) -> Any:
            async with database.read() as before:
                found = await locking(before, keys, lock=False)
            await asyncio.sleep(0.005)
            return found

        async def add_chunks(_conn: Any, _chunks: Any) -> None:
            """What was admitted twice would be told apart by its keys."""

        store.load = load
        store.add_chunks = add_chunks  # type: ignore[assignment]
    limiter = RateLimiter(database, system_clock, PlanOptions())
    try:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        got = await asyncio.gather(*(client(limiter, number) for number in range(clients)))
        print(sum(got), flush=True)
    finally:
        await limiter.close()
        await database.close()


if __name__ == "__main__":
    asyncio.run(race(sys.argv[1], int(sys.argv[2]), unlocked="unlocked" in sys.argv))
