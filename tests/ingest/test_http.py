"""The endpoint behind a real server and sockets: what a client sees on the wire."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvicorn

from ingest.limits import IngestLimits
from tests.ingest.http import Api
from tests.ingest.messages import dump, event

Connect = Callable[[], Awaitable["Client"]]
LIMITS = IngestLimits(max_body_bytes=200_000, body_timeout_seconds=0.3)


class Client:
    """A connection on which nothing is hidden."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    def send(self, body: bytes, *headers: str, length: int | None = None) -> None:
        lines = ["POST /api/v1/events HTTP/1.1", "Host: x", *headers]
        lines.append("Content-Type: application/cloudevents+json")
        if not any(header.startswith("Transfer") for header in headers):
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    async def answer(self) -> tuple[int, str, bytes]:
        """Status, head in lower case, body."""
        async with asyncio.timeout(20):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = 0
            for line in head.splitlines():
                if line.startswith("content-length:"):
                    length = int(line.split(":")[1])
            return int(head.split()[1]), head, await self._reader.readexactly(length)

    async def is_closed(self) -> bool:
        async with asyncio.timeout(20):
            return await self._reader.read() == b""


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    config = uvicorn.Config(
        Api(LIMITS).endpoint, http="httptools", ws="none", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    clients: list[Client] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config.load()
        server.lifespan = config.lifespan_class(config)
        await server.startup([listener])

        async def open_one() -> Client:
            client = Client(*await asyncio.open_connection(*listener.getsockname()))
            clients.append(client)
            return client

        yield open_one
        for client in clients:
            client.writer.close()
            await client.writer.wait_closed()
        await server.shutdown([listener])


async def test_a_connection_serves_many_requests_good_and_bad(connect: Connect) -> None:
    client = await connect()
    for body, status in ((dump(event()), 204), (b"{", 400), (dump(event(id=None)), 400)) * 2:
        client.send(body)
        answer, head, content = await client.answer()
        assert answer == status
        if status == 204:
            assert content == b"" and "content-length" not in head and "content-type" not in head
        else:
            assert "content-type: application/problem+json\r\n" in head


async def test_requests_sent_ahead_are_answered_in_order(connect: Connect) -> None:
    client = await connect()
    for body in (dump(event()), b"{", dump(event())):
        client.send(body)
    assert [(await client.answer())[0] for _ in range(3)] == [204, 400, 204]


async def test_a_body_in_chunks(connect: Connect) -> None:
    client = await connect()
    body = dump(event())
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:]))
    client.send(chunks + b"0\r\n\r\n", "Transfer-Encoding: chunked")
    assert (await client.answer())[0] == 204


async def test_a_body_that_is_declared_too_large_is_not_read(connect: Connect) -> None:
    client = await connect()
    client.send(b"", length=LIMITS.max_body_bytes + 1)
    assert (await client.answer())[0] == 413
    assert await client.is_closed()


async def test_a_chunked_body_is_cut_off_at_the_limit(connect: Connect) -> None:
    client = await connect()
    chunk = b"%x\r\n%b\r\n" % (100_000, b" " * 100_000)
    client.send(chunk * 3, "Transfer-Encoding: chunked")
    assert (await client.answer())[0] == 413


async def test_a_body_that_never_ends_gets_an_answer(connect: Connect) -> None:
    client = await connect()
    client.send(b'{"specversion"', length=1000)
    assert (await client.answer())[0] == 408
    assert await client.is_closed()


async def test_a_client_that_waits_to_be_asked(connect: Connect) -> None:
    client = await connect()
    body = dump(event())
    client.send(b"", "Expect: 100-continue", length=len(body))
    assert (await client.answer())[0] == 100
    client.writer.write(body)
    assert (await client.answer())[0] == 204
