"""What several callers want at the same time, done once."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
T = TypeVar("T")


class Sharing(Generic[Key, T]):
    """Work under way, by key: whoever wants what another one is doing waits for it."""

    def __init__(self) -> None:
        self._under_way: dict[Key, asyncio.Future[T]] = {}

    async def do(self, key: Key, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What the work under way for a key comes to, begun here if there is none."""
        shared = self._under_way.get(key)
        if shared is None:
            shared = self._under_way[key] = asyncio.ensure_future(work())
            shared.add_done_callback(lambda done: self._done(key, done))
        # Who goes away does not take it away from the others.
        return await asyncio.shield(shared)

    def _done(self, key: Key, done: "asyncio.Future[T]") -> None:
        del self._under_way[key]
        if not done.cancelled():
            # Whoever waits is told of an error; when nobody does any more, asyncio must not.
            done.exception()
