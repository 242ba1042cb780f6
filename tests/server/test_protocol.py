"""Answers leave in one piece, in order, and whole."""

import asyncio
from typing import Any, cast

from meterline.server.protocol import GatheringTransport


class Recorded:
    """A transport that notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.closing = False

    def write(self, data: bytes) -> None:
        self.asked.append(data)

    def close(self) -> None:
        self.closing = True
        self.asked.append("close")

    def is_closing(self) -> bool:
        return self.closing

    def get_extra_info(self, name: str) -> str:
        return name


def gathering() -> tuple[Recorded, GatheringTransport]:
    inner = Recorded()
    transport = cast(asyncio.Transport, inner)
    return inner, GatheringTransport(transport, asyncio.get_running_loop())


async def test_what_is_written_in_one_turn_leaves_in_pairs() -> None:
    inner, transport = gathering()
    transport.write(b"head")
    assert inner.asked == []
    transport.write(b"body")
    # At once: the other answers of this turn need not be made first.
    assert inner.asked == [b"headbody"]
    transport.write(b"next")
    await asyncio.sleep(0)
    assert inner.asked == [b"headbody", b"next"]
    await asyncio.sleep(0)
    assert inner.asked[2:] == []


async def test_closing_writes_first() -> None:
    inner, transport = gathering()
    transport.write(b"head")
    transport.write(b"body")
    transport.close()
    await asyncio.sleep(0)
    assert inner.asked == [b"headbody", "close"]


async def test_much_is_written_at_once() -> None:
    """A transport that is full can say so before more is made."""
    inner, transport = gathering()
    transport.write(b"x" * 60_000)
    transport.write(b"y" * 60_000)
    assert inner.asked == [b"x" * 60_000 + b"y" * 60_000]
    transport.write(b"z")
    await asyncio.sleep(0)
    assert inner.asked[1:] == [b"z"]


async def test_nothing_is_written_to_a_client_that_is_gone() -> None:
    inner, transport = gathering()
    transport.write(b"head")
    inner.closing = True
    await asyncio.sleep(0)
    assert inner.asked == []


async def test_all_else_is_the_transports() -> None:
    _, transport = gathering()
    assert transport.get_extra_info("peername") == "peername"
