"""Bodies have limits, and errors do not escape."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterline.kernel.errors import NotFoundError, PayloadTooLargeError
from meterline.web.asgi import (
    BodyLimit,
    ClientGoneError,
    ErrorBoundary,
    Message,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    send_response,
)
from tests.support.api import assert_problem, client_of


def receiving(chunks: Iterable[bytes], *, end: bool = True) -> Receive:
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    if end:
        messages[-1]["more_body"] = False
    messages.append({"type": "http.disconnect"})
    stream = iter(messages)

    async def receive() -> Message:
        return next(stream)

    return receive


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=6), st.integers(0, 60))
async def test_a_body_is_read_up_to_the_limit(chunks: list[bytes], limit: int) -> None:
    whole = b"".join(chunks)
    if len(whole) <= limit:
        assert await read_body(receiving(chunks), limit) == whole
    else:
        with pytest.raises(PayloadTooLargeError, match=str(limit)):
            await read_body(receiving(chunks), limit)


async def test_reading_stops_at_the_limit() -> None:
    taken = 0

    async def endless() -> Message:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"x" * 100, "more_body": True}

    with pytest.raises(PayloadTooLargeError):
        await read_body(endless, 1_000)
    assert taken == 11


@pytest.mark.parametrize("chunks", [[], [b"x"]])
async def test_a_client_that_hangs_up(chunks: list[bytes]) -> None:
    with pytest.raises(ClientGoneError):
        await read_body(receiving(chunks, end=False), 100)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await read_body(receive, 1 << 30)
    await send_response(send, 200, [(b"content-length", str(len(body)).encode())], body)


@pytest.mark.parametrize(("size", "status"), [(0, 200), (99, 200), (100, 200), (101, 413)])
@pytest.mark.parametrize("declared", [True, False])
async def test_the_body_limit_at_its_edge(size: int, status: int, declared: bool) -> None:
    async def chunked() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x"

    async with client_of(BodyLimit(echo, 100)) as client:
        content: Any = b"x" * size if declared else chunked()
        response = await client.post("/", content=content)
    if status == 200:
        assert response.content == b"x" * size
    else:
        assert assert_problem(response, 413)["extensions"] == {"maxBytes": 100}


@pytest.mark.parametrize("length", ["9" * 5_000, "-1", "x", "²"])
async def test_a_strange_content_length(length: str) -> None:
    scope = {"type": "http", "headers": [(b"content-length", length.encode())]}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await BodyLimit(echo, 100)(scope, receiving([b"x"]), send)
    assert sent[0]["status"] in (200, 413)


async def test_a_client_that_never_ends_its_body() -> None:
    async def silent() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(b"transfer-encoding", b"chunked")]}
    await BodyLimit(echo, 100, timeout_seconds=0.01)(scope, silent, send)
    assert sent[0]["status"] == 408


async def test_what_escapes_becomes_a_problem() -> None:
    async def missing(scope: Scope, receive: Receive, send: Send) -> None:
        raise NotFoundError("nothing here")

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("secret")

    async with client_of(ErrorBoundary(missing)) as client:
        assert assert_problem(await client.get("/"), 404)["detail"] == "nothing here"
    async with client_of(ErrorBoundary(broken)) as client:
        response = await client.get("/")
        assert_problem(response, 500)
        assert "secret" not in response.text


async def test_a_started_answer_is_not_answered_twice() -> None:
    async def half(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await ErrorBoundary(half)({"type": "http", "headers": []}, receiving([b""]), send)
    assert [message["type"] for message in sent] == ["http.response.start"]


def test_headers() -> None:
    scope = {"headers": [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]}
    assert (header(scope, b"a"), header(scope, b"b"), header(scope, b"c")) == (b"1", b"2", None)
    assert isinstance(httpx.Headers(scope["headers"]), httpx.Headers)
