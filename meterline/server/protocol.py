"""HTTP/1.1 on a connection: uvicorn's protocol, whose answers leave in one piece.

uvicorn writes the head of an answer and its body one after the other, and each write is a call of
the system and a packet: for small answers they cost more than all else that a connection does.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class GatheringTransport:
    """A transport that writes in pairs: what is written first waits for what comes right after."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._first: bytes | None = None

    def write(self, data: bytes) -> None:
        """Write at once, or by the end of this turn of the event loop; in order."""
        if self._first is None:
            self._first = data
            self._loop.call_soon(self._flush)
        else:
            first, self._first = self._first, None
            if not self._transport.is_closing():
                self._transport.write(first + data)

    def close(self) -> None:
        """Close when everything is written."""
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        # All else is the transport's own business.
        return getattr(self._transport, name)

    def _flush(self) -> None:
        first, self._first = self._first, None
        if first is not None and not self._transport.is_closing():
            self._transport.write(first)


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol on a `GatheringTransport`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol.connection_made`."""
        gathering = GatheringTransport(transport, self.loop)
        super().connection_made(cast(asyncio.Transport, gathering))
