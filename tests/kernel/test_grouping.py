import asyncio
from collections.abc import Sequence

import pytest

from meterline.kernel.errors import UnavailableError
from meterline.kernel.grouping import Grouping


class Gate:
    """A commit that is held until it is let through."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.fail = False

    async def commit(self, items: Sequence[int]) -> list[int | Exception]:
        self.groups.append(list(items))
        await self.open.wait()
        if self.fail:
            raise OSError("no disk")
        return [ValueError("odd") if item % 2 else item * 10 for item in items]


async def test_what_waits_is_committed_as_one_group_in_order() -> None:
    gate = Gate()
    gate.open.clear()
    grouping = Grouping(gate.commit, name="test", max_items=100, max_group_items=3)
    first = grouping.submit(0)
    await asyncio.sleep(0)
    rest = [grouping.submit(number) for number in (2, 4, 6, 8)]
    gate.open.set()
    assert await asyncio.gather(first, *rest) == [0, 20, 40, 60, 80]
    assert gate.groups == [[0], [2, 4, 6], [8]]
    assert grouping.depth == 0


async def test_a_failed_item_fails_alone_and_a_failed_group_as_a_whole() -> None:
    gate = Gate()
    grouping = Grouping(gate.commit, name="test", max_items=100, max_group_items=10)
    odd, even = grouping.submit(1), grouping.submit(2)
    assert await even == 20
    with pytest.raises(ValueError, match="odd"):
        await odd
    gate.fail = True
    futures = [grouping.submit(2), grouping.submit(4)]
    for future in futures:
        with pytest.raises(OSError, match="no disk"):
            await future
    gate.fail = False
    assert await grouping.submit(6) == 60


async def test_too_much_that_waits_is_refused_and_close_commits_the_rest() -> None:
    gate = Gate()
    gate.open.clear()
    grouping = Grouping(
        gate.commit, name="the test queue", max_items=2, max_group_items=10, max_cost=50
    )
    big = grouping.submit(0, cost=500)
    with pytest.raises(UnavailableError, match="the test queue"):
        grouping.submit(2)
    gate.open.set()
    assert await big == 0
    gate.open.clear()
    waiting = [grouping.submit(2), grouping.submit(4)]
    with pytest.raises(UnavailableError):
        grouping.submit(6)
    closing = asyncio.create_task(grouping.close())
    await asyncio.sleep(0)
    with pytest.raises(UnavailableError, match="closed"):
        grouping.submit(8)
    gate.open.set()
    await closing
    assert [future.result() for future in waiting] == [20, 40]


async def test_a_caller_that_gave_up_harms_nobody() -> None:
    gate = Gate()
    gate.open.clear()
    grouping = Grouping(gate.commit, name="test", max_items=10, max_group_items=10)
    gone, stays = grouping.submit(2), grouping.submit(4)
    gone.cancel()
    gate.open.set()
    assert await stays == 40


async def test_a_commit_goes_on_with_what_waits_in_its_own_thread() -> None:
    groups: list[list[int]] = []

    def work(items: Sequence[int]) -> list[int | Exception]:
        while True:
            groups.append(list(items))
            if 13 in items:
                raise OSError("no disk")
            outcomes: list[int | Exception] = [item * 10 for item in items]
            then = grouping.more(outcomes)
            if not then:
                return outcomes
            items = then

    async def commit(items: Sequence[int]) -> list[int | Exception]:
        return await asyncio.to_thread(work, items)

    grouping = Grouping(commit, name="test", max_items=100, max_group_items=2)
    futures = [grouping.submit(number) for number in (1, 2, 3, 4, 5)]
    assert await asyncio.gather(*futures) == [10, 20, 30, 40, 50]
    assert groups == [[1, 2], [3, 4], [5]]
    found = await asyncio.gather(
        *(grouping.submit(number) for number in (1, 2, 13, 3, 4)), return_exceptions=True
    )
    assert [str(one) for one in found] == ["10", "20", "no disk", "no disk", "40"]
    assert grouping.depth == 0
