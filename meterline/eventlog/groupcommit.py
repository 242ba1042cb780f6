"""Group commit: many callers, one writer thread, one durable commit for all who wait.

A commit to disk costs the same for one item as for a hundred. So callers only enqueue; the
writer takes everything that waits, commits it as one, and wakes all of them with a single call
into their event loop. While a commit runs the next group gathers: the busier it is, the larger
the groups, without a timer or a tuning knob.
"""

import asyncio
import contextlib
import copy
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

from meterline.kernel.errors import UnavailableError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")


class GroupCommit(Generic[Item, Outcome]):
    """Commits items in groups from one thread of its own.

    `commit` gets a group in the order of submission and answers with one outcome an item. When
    it raises, every item of that group fails with that error and the next group is tried anew.
    All calls but `commit` happen on one event loop. `max_items` and `max_cost` bound what may
    wait (a single item of any cost is taken when nothing waits); `max_group_cost` bounds a group.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Sequence[Outcome]],
        *,
        name: str,
        max_items: int,
        max_cost: int,
        max_group_items: int,
        max_group_cost: int,
        settled: Callable[[Sequence[Outcome]], None] | None = None,
    ) -> None:
        self._commit = commit
        self._settled = settled
        self._max_items = max_items
        self._max_cost = max_cost
        self._max_group_items = max_group_items
        self._max_group_cost = max_group_cost
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: deque[tuple[Item, int, asyncio.Future[Outcome]]] = deque()
        self._wake: SimpleQueue[bool] = SimpleQueue()
        self._asleep = True  # True: the writer waits for a token and none is on its way
        self._items = 0
        self._cost = 0
        self._closing = False
        self._thread: threading.Thread | None = None

    @property
    def depth(self) -> int:
        """Items submitted and not settled yet."""
        return self._items

    def submit(self, item: Item, cost: int) -> asyncio.Future[Outcome]:
        """Enqueue an item; the future settles when its group is durable, or failed."""
        if self._closing:
            raise UnavailableError(f"{self._name} is closed")
        if self._items and (self._items >= self._max_items or self._cost + cost > self._max_cost):
            raise UnavailableError(f"{self._name} cannot keep up; its queue is full")
        loop = self._loop
        if loop is None or self._thread is None:
            loop = self._start()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._items += 1
        self._cost += cost
        self._waiting.append((item, cost, future))
        # The writer says that it sleeps before it looks at the queue for the last time; we append
        # before we ask whether it sleeps. So one of us sees the other. A token too many only
        # makes it look once more.
        if self._asleep:
            self._asleep = False
            self._wake.put(True)
        return future

    async def close(self) -> None:
        """Commit everything submitted, then stop the thread."""
        self._closing = True
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._wake.put(False)
        await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        return self._loop

    def _run(self) -> None:
        open_ = True
        while open_ or self._waiting:
            if not self._waiting:
                open_ = self._sleep() and open_
                continue
            group = self._take()
            outcomes: Sequence[Outcome] | Exception
            try:
                outcomes = self._commit([entry[0] for entry in group])
            except Exception as error:
                outcomes = error
            loop = self._loop
            # A loop that is gone has nobody left who waits.
            with contextlib.suppress(RuntimeError):
                if loop is not None:
                    loop.call_soon_threadsafe(self._settle, group, outcomes)

    def _sleep(self) -> bool:
        self._asleep = True
        if self._waiting:
            self._asleep = False
            return True
        return self._wake.get()

    def _take(self) -> list[tuple[Item, int, asyncio.Future[Outcome]]]:
        group = [self._waiting.popleft()]
        cost = group[0][1]
        while self._waiting and len(group) < self._max_group_items:
            cost += self._waiting[0][1]
            if cost > self._max_group_cost:
                break
            group.append(self._waiting.popleft())
        return group

    def _settle(
        self,
        group: Sequence[tuple[Item, int, asyncio.Future[Outcome]]],
        outcomes: Sequence[Outcome] | Exception,
    ) -> None:
        self._items -= len(group)
        for entry in group:
            self._cost -= entry[1]
        if isinstance(outcomes, Exception):
            for _, _, future in group:
                if not future.done():
                    # One instance each: a traceback grows with every place that raises it.
                    future.set_exception(copy.copy(outcomes))
            return
        if self._settled is not None:
            self._settled(outcomes)
        for (_, _, future), outcome in zip(group, outcomes, strict=True):
            if not future.done():
                future.set_result(outcome)
