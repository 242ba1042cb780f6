"""One attempt against receivers of every kind."""

import pytest

from entitlements.notifications.sender import HttpSender
from tests.entitlements.notifications.receiver import receiving, reply


async def test_what_is_sent_arrives_as_it_is() -> None:
    async with receiving() as receiver:
        sender = HttpSender(allow_private=True)
        body = '{"name":"Zoë"}'.encode()
        headers = {"webhook-id": "1", "x-own": "yes", "content-length": str(len(body))}
        answer = await sender.send(f"{receiver.url}/in?a=b", headers, body)
        await sender.close()
        ((path, got, sent),) = receiver.got
        assert (answer.status, path, sent) == (204, "/in?a=b", body)
        assert got["host"] == receiver.url.removeprefix("http://")
        assert got["x-own"] == "yes"


@pytest.mark.parametrize(
    ("raw", "status", "body", "retry_after"),
    [
        (reply(200, b"thank you"), 200, "thank you", None),
        (reply(500, b"x" * 5_000), 500, "x" * 1_024, None),
        (reply(429, b"", Retry_After="30"), 429, "", "30"),
        (reply(400, b"\xff\x00"), 400, "\ufffd\x00", None),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nno length", 200, "no length", None),
    ],
)
async def test_answers(raw: bytes, status: int, body: str, retry_after: str | None) -> None:
    async with receiving() as receiver:
        receiver.respond = lambda _path: raw
        sender = HttpSender(allow_private=True)
        answer = await sender.send(receiver.url, {}, b"{}")
        await sender.close()
        assert (answer.status, answer.body, answer.retry_after) == (status, body, retry_after)


@pytest.mark.parametrize("raw", [b"", b"no http\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"hang"])
async def test_receivers_that_do_not_answer(raw: bytes) -> None:
    async with receiving() as receiver:
        receiver.respond = lambda _path: raw
        sender = HttpSender(allow_private=True, timeout_seconds=0.3 if raw == b"hang" else 10)
        answer = await sender.send(receiver.url, {}, b"{}")
        await sender.close()
        assert answer.status is None
        assert answer.body


async def test_nobody_listens() -> None:
    async with receiving() as receiver:
        url = receiver.url
    sender = HttpSender(allow_private=True)
    answer = await sender.send(url, {}, b"{}")
    assert (answer.status, answer.refused) == (None, False)
    assert "cannot connect" in answer.body
    broken = await sender.send("http://[::bad/", {}, b"{}")
    assert broken.status is None
    await sender.close()
