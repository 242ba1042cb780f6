"""The same deadline for many tasks, for the price of a dictionary entry each.

`asyncio.timeout` sets a timer and clears it again, which costs more than reading a usual request.
Here one timer serves all: every task gets the same time, so they are due in the order in which
they began, and the timer needs to know the first of them only.
"""

import asyncio


class Deadlines:
    """Cancels tasks that are between `begin` and `end` for too long. For one event loop."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._due: dict[asyncio.Task[object], float] = {}
        self._late: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None
        # Asking for the running loop costs a system call on Python 3.11.
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> asyncio.Task[object]:
        """The current task's time runs from now."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None
        due = self._due[task] = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._reap, loop)
        return task

    def end(self, task: asyncio.Task[object]) -> None:
        """The task is done with what it began."""
        self._due.pop(task, None)

    def was_late(self, task: asyncio.Task[object]) -> bool:
        """Whether a cancellation that the task has just caught came from here; it is over then."""
        if task not in self._late:
            return False
        self._late.discard(task)
        task.uncancel()
        return True

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._timer = None
        for task, due in list(self._due.items()):
            if due > now:
                self._timer = loop.call_at(due, self._reap, loop)
                break
            del self._due[task]
            self._late.add(task)
            task.cancel()
