"""Group commit on the event loop: many callers, one flusher, one commit for all who wait.

A commit to a broker or a database costs about the same for one item as for a hundred. Callers
only enqueue; the flusher takes everything that waits, commits it as one, and wakes them. While a
commit is under way the next group gathers: the busier it is, the larger the groups, without a
timer. (`meterline.eventlog.groupcommit` is the same for a commit that blocks a thread.)
"""

import asyncio
import copy
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from meterline.kernel.errors import UnavailableError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class Grouping(Generic[Item, Outcome]):
    """Commits items in groups, one group at a time, in the order of submission.

    `commit` answers one outcome an item; an outcome that is an exception fails its item alone.
    When `commit` raises, every item of that group fails with that error. `max_items` and
    `max_cost` bound what may wait or be under way (a single item of any cost is taken when
    nothing else is there); `max_group_items` and `max_group_cost` bound a group. Not for
    threads, `more` aside.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Outcome | Exception]]],
        *,
        name: str,
        max_items: int,
        max_group_items: int,
        max_cost: int | None = None,
        max_group_cost: int | None = None,
    ) -> None:
        self._commit = commit
        self._name = name
        self._max_items = max_items
        self._max_cost = max_cost
        self._max_group_items = max_group_items
        self._max_group_cost = max_group_cost
        self._waiting: deque[tuple[Item, int, asyncio.Future[Outcome]]] = deque()
        self._group: list[tuple[Item, int, asyncio.Future[Outcome]]] = []
        self._items = 0
        self._cost = 0
        self._closing = False
        self._flusher: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def depth(self) -> int:
        """Items submitted and not settled yet."""
        return self._items

    def submit(self, item: Item, cost: int = 1) -> asyncio.Future[Outcome]:
        """Enqueue an item; the future settles with its outcome.

        Raises `UnavailableError` when it is closed or too much waits already.
        """
        if self._closing:
            raise UnavailableError(f"{self._name} is closed")
        full = self._max_cost is not None and self._cost + cost > self._max_cost
        if self._items and (self._items >= self._max_items or full):
            raise UnavailableError(f"{self._name} cannot keep up; its queue is full")
        loop = self._loop
        if loop is None:
            # Once: it costs a system call on Python 3.11.
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._items += 1
        self._cost += cost
        self._waiting.append((item, cost, future))
        if self._flusher is None:
            self._flusher = loop.create_task(self._flush(), name=self._name)
        return future

    def more(self, outcomes: Sequence[Outcome | Exception]) -> Sequence[Item]:
        """The next group, for a commit that is done with its own and can go on by itself.

        To be called by that commit, in whichever thread it is: it need not wait for the event
        loop between two groups. Nothing when nobody waits; then the outcomes are still its own.
        """
        group = self._group
        if not self._waiting or self._loop is None:
            return ()
        self._group = self._take()
        self._loop.call_soon_threadsafe(self._settle, group, outcomes)
        return [item for item, _, _ in self._group]

    async def close(self) -> None:
        """Take no more, and commit everything submitted."""
        self._closing = True
        while self._flusher is not None:
            await asyncio.wait([self._flusher])

    async def _flush(self) -> None:
        try:
            while self._waiting:
                self._group = self._take()
                outcomes: Sequence[Outcome | Exception]
                try:
                    outcomes = await self._commit([item for item, _, _ in self._group])
                except Exception as error:
                    # One instance each: a traceback grows with every place that raises it.
                    outcomes = [copy.copy(error) for _ in self._group]
                self._settle(self._group, outcomes)
        finally:
            self._flusher = None

    def _take(self) -> list[tuple[Item, int, asyncio.Future[Outcome]]]:
        group = [self._waiting.popleft()]
        cost = group[0][1]
        while self._waiting and len(group) < self._max_group_items:
            cost += self._waiting[0][1]
            if self._max_group_cost is not None and cost > self._max_group_cost:
                break
            group.append(self._waiting.popleft())
        return group

    def _settle(
        self,
        group: Sequence[tuple[Item, int, asyncio.Future[Outcome]]],
        outcomes: Sequence[Outcome | Exception],
    ) -> None:
        for (_, cost, future), outcome in zip(group, outcomes, strict=True):
            self._items -= 1
            self._cost -= cost
            if future.done():
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
