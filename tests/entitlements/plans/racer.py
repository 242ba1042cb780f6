"""A process that asks a rate limit until it is refused.

`python -m … URL CLIENTS SUBJECT [unlocked]` says `ready`, waits for a line, and prints how many
requests it got. `unlocked` decides on what was true before its transaction, as a server without
locks would.
"""

import asyncio
import sys
from typing import Any, TypeVar

from entitlements.plans import limiter as limiter_module
from entitlements.plans.limiter import RateLimiter
from entitlements.plans.options import PlanOptions
from entitlements.plans.rates import RateLimits
from meterline.db.engine import Database
from meterline.db.steps import Steps, Write, on
from meterline.kernel.clock import system_clock

T = TypeVar("T")
LIMITS = RateLimits((None, 500, 1_000), None)


async def client(limiter: RateLimiter, subject: str, number: int) -> int:
    got = 0
    while (await limiter.admit("default", subject, LIMITS, 0, f"{number}")).admitted:
        got += 1
    return got


async def careless(database: Database, steps: Steps[T]) -> T:
    """Read everything, wait a little, and write everything, with nothing held in between."""
    answer: Any = None
    try:
        while True:
            step = steps.send(answer)
            if isinstance(step, Write):
                # What was admitted twice would be told apart by the keys of chunks.
                if "plan_rate_chunks" not in step.changes[0].statement["postgresql"]:
                    async with database.transaction() as conn:
                        await on(conn, _one(step))
                answer = ()
                continue
            async with database.transaction() as conn:
                answer = await on(conn, _one(step))
            await asyncio.sleep(0.005)
    except StopIteration as end:
        result: T = end.value
        return result


def _one(step: Any) -> Steps[Any]:
    return (yield step)


async def race(url: str, clients: int, subject: str, *, unlocked: bool) -> None:
    database = Database.open(url)
    if unlocked:
        limiter_module.in_transaction = careless  # type: ignore[attr-defined]
    limiter = RateLimiter(database, system_clock, PlanOptions())
    try:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        got = await asyncio.gather(*(client(limiter, subject, number) for number in range(clients)))
        print(sum(got), flush=True)
    finally:
        await limiter.close()
        await database.close()


if __name__ == "__main__":
    asyncio.run(race(sys.argv[1], int(sys.argv[2]), sys.argv[3], unlocked="unlocked" in sys.argv))
