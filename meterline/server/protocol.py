"""HTTP/1.1 on a connection: uvicorn's protocol, whose answers leave in one piece.

uvicorn writes the head of an answer and its body one after the other, and each write is a call of
the system and a packet: for small answers they cost more than all else that a connection does.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_GATHERED = 65_536
"""Bytes; a transport that has so much to write must be able to say that it is full."""


class GatheringTransport:
    """A transport that writes together what is written in one turn of the event loop."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write soon, in order."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > _MOST_GATHERED:
            self._flush()

    def close(self) -> None:
        """Close when everything is written."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        # All else is the transport's own business.
        return getattr(self._transport, name)

    def _flush(self) -> None:
        parts = self._parts
        if parts:
            self._parts, self._size = [], 0
            if not self._transport.is_closing():
                self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a `GatheringTransport`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol.connection_made`."""
        gathering = GatheringTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, gathering))
