"""A receiver of webhooks on the loopback interface, as a receiver of the wild may behave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Respond = Callable[[str], bytes]


@dataclass
class Receiver:
    """What arrived: (path, headers, body). `respond` gives the bytes to answer a path with."""

    url: str = ""
    got: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    respond: Respond = lambda _path: reply(204)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def expect(self, count: int) -> None:
        """Wait until so many messages are here."""
        async with asyncio.timeout(20):
            while len(self.got) < count:
                await self.arrived.wait()
                self.arrived.clear()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            path = head[0].split(" ")[1]
            pairs = (line.split(": ", 1) for line in head[1:] if line)
            headers = {name.lower(): text for name, text in pairs}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.got.append((path, headers, body))
            self.arrived.set()
            answer = self.respond(path)
            if answer == b"hang":
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def reply(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield receiver
    finally:
        server.close()
