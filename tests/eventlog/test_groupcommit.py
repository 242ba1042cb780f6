"""Group commit by itself, with a commit that the test holds in its hand."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from meterline.eventlog.groupcommit import GroupCommit
from meterline.kernel.errors import UnavailableError


class Gate:
    """A commit that waits until it is let through; remembers its groups."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.leave = threading.Semaphore(0)
        self.refuse: set[int] = set()

    def __call__(self, items: Sequence[int]) -> Sequence[int]:
        self.groups.append(list(items))
        self.entered.release()
        assert self.leave.acquire(timeout=30)
        if self.refuse & set(items):
            raise UnavailableError("refused")
        return [item * 10 for item in items]


def group_commit(
    gate: Gate, *, items: int = 100, cost: int = 1000, group_items: int = 50, group_cost: int = 500
) -> GroupCommit[int, int]:
    return GroupCommit(
        gate,
        name="the test",
        max_items=items,
        max_cost=cost,
        max_group_items=group_items,
        max_group_cost=group_cost,
    )


async def entered(gate: Gate) -> None:
    assert await asyncio.to_thread(gate.entered.acquire, timeout=30)


async def test_what_arrives_during_a_commit_is_the_next_group() -> None:
    gate = Gate()
    commits = group_commit(gate)
    first = commits.submit(1, 1)
    await entered(gate)
    others = [commits.submit(number, 1) for number in (2, 3, 4)]
    assert commits.depth == 4
    gate.leave.release(2)
    assert await first == 10
    assert await asyncio.gather(*others) == [20, 30, 40]
    assert gate.groups == [[1], [2, 3, 4]]
    assert commits.depth == 0
    await commits.close()


async def test_a_group_keeps_to_its_size_and_cost() -> None:
    gate = Gate()
    commits = group_commit(gate, group_items=3, group_cost=100)
    futures = [commits.submit(0, 1)]
    await entered(gate)
    futures += [commits.submit(number, 1) for number in (1, 2, 3, 4)]
    futures += [commits.submit(number, 60) for number in (5, 6)]
    futures += [commits.submit(7, 700)]
    gate.leave.release(10)
    await asyncio.gather(*futures)
    assert gate.groups == [[0], [1, 2, 3], [4, 5], [6], [7]]
    await commits.close()


async def test_a_failed_commit_fails_its_own_group_only() -> None:
    gate = Gate()
    gate.refuse = {3}
    commits = group_commit(gate)
    first = commits.submit(1, 1)
    await entered(gate)
    second = [commits.submit(2, 1), commits.submit(3, 1)]
    gate.leave.release(2)
    assert await first == 10
    failures = await asyncio.gather(*second, return_exceptions=True)
    assert [type(failure) for failure in failures] == [UnavailableError] * 2
    assert failures[0] is not failures[1]
    third = commits.submit(4, 1)
    gate.leave.release()
    assert await third == 40
    await commits.close()


async def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    gate = Gate()
    commits = group_commit(gate, items=3, cost=100)
    taken = [commits.submit(number, 30) for number in (1, 2, 3)]
    with pytest.raises(UnavailableError, match="full"):
        commits.submit(4, 1)
    gate.leave.release(10)
    await asyncio.gather(*taken)
    # One item of any cost is taken when nothing waits; then its cost counts.
    big = commits.submit(5, 10_000)
    with pytest.raises(UnavailableError, match="full"):
        commits.submit(6, 1)
    assert await big == 50
    await commits.close()


async def test_a_caller_who_gave_up_harms_nobody() -> None:
    gate = Gate()
    commits = group_commit(gate)
    gone, stays = commits.submit(1, 1), commits.submit(2, 1)
    await entered(gate)
    gone.cancel()
    gate.leave.release(2)
    assert await stays == 20
    await commits.close()


async def test_closing_commits_what_waits_and_then_refuses() -> None:
    gate = Gate()
    commits = group_commit(gate)
    futures = [commits.submit(1, 1)]
    await entered(gate)
    futures += [commits.submit(2, 1), commits.submit(3, 1)]
    gate.leave.release(2)
    await commits.close()
    assert await asyncio.gather(*futures) == [10, 20, 30]
    with pytest.raises(UnavailableError, match="closed"):
        commits.submit(4, 1)
    await commits.close()


async def test_nothing_is_lost_between_sleep_and_wake() -> None:
    """One at a time, so that the writer goes to sleep after each; a lost wake-up would hang."""
    commits: GroupCommit[int, int] = GroupCommit(
        lambda items: list(items),
        name="the test",
        max_items=10,
        max_cost=10,
        max_group_items=10,
        max_group_cost=10,
    )
    async with asyncio.timeout(60):
        for number in range(5_000):
            assert await commits.submit(number, 1) == number
    await commits.close()
