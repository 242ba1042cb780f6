"""One timer for the deadlines of many tasks."""

import asyncio

import pytest

from ingest.deadlines import Deadlines


async def work(deadlines: Deadlines, until: "asyncio.Future[None]") -> str:
    task = deadlines.begin()
    try:
        await until
        return "done"
    except asyncio.CancelledError:
        if deadlines.was_late(task):
            return "late"
        raise
    finally:
        deadlines.end(task)


async def test_those_who_take_too_long_are_cancelled_and_others_are_not() -> None:
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(0.02)
    never, soon = loop.create_future(), loop.create_future()
    tasks = [asyncio.create_task(work(deadlines, future)) for future in (never, soon, never)]
    await asyncio.sleep(0)
    soon.set_result(None)
    assert await asyncio.gather(*tasks) == ["late", "done", "late"]
    assert [task.cancelling() for task in tasks] == [0, 0, 0]
    # The timer goes on for those who begin later.
    assert await work(deadlines, loop.create_future()) == "late"


async def test_a_cancellation_from_elsewhere_is_passed_on() -> None:
    deadlines = Deadlines(30)
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(work(deadlines, never))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
