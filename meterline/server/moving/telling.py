"""What a move says while it goes on."""

from collections.abc import Awaitable, Callable
from typing import Protocol

Step = Callable[[str], Awaitable[None]]
"""Called at each named step; fault tests stop the process there."""

STEPS = (
    "rested", "begun", "keys", "events", "chunk", "erased", "copied", "tables", "filled", "done",
)  # fmt: skip


class Tell(Protocol):
    """Hears how far a move is."""

    def begin(self, what: str, total: int | None, done: int = 0) -> None:
        """The next part begins; of `total` things, where that is known, some are done already."""
        ...

    def advance(self, count: int) -> None:
        """So many more are done."""
        ...

    def say(self, text: str) -> None:
        """A line for people."""
        ...


async def no_step(_name: str) -> None:
    """The default: no fault is injected."""
