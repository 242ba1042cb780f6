"""What a client sends in the background: how it connects, and how it ends."""

import asyncio
import threading
import time
from typing import Any

import httpx2
import pytest

from meterline_sdk import AsyncMeterline, Meterline, RetryPolicy
from tests.sdk.loopback import Asked, Loopback, Reply, loopback


class Meeting:
    """Answers records when so many are there at the same time."""

    def __init__(self, parties: int) -> None:
        self._barrier = threading.Barrier(parties)

    def answer(self, _: Asked) -> Reply:
        try:
            self._barrier.wait(20)
        except threading.BrokenBarrierError:
            return Reply(400, {})
        return Reply(200, {})


def test_records_do_not_wait_for_each_other() -> None:
    dropped: list[Any] = []
    buffer = {"on_drop": lambda events, _: dropped.extend(events)}
    with loopback(Meeting(4).answer) as server, Meterline(server.url, buffer=buffer) as meterline:
        for _ in range(4):
            meterline.record_response("alice", {}, provider="openai")
        assert meterline.records.flush(30)
        assert len({one.peer for one in server.asked}) == 4
    assert dropped == []


IMPATIENT = {"max_age_seconds": 0.0, "close_seconds": 1.0, "on_drop": lambda *_: None}


def test_both_buffers_close_in_the_time_of_one() -> None:
    end = threading.Event()
    with loopback(lambda _: Reply(200, {}) if end.wait(30) else Reply(503)) as server:
        meterline = Meterline(server.url, buffer={**IMPATIENT, "close_seconds": 2.0})
        meterline.track_event("llm.usage", "alice")
        meterline.record_response("alice", {}, provider="openai")
        begun = time.monotonic()
        meterline.close()
        assert time.monotonic() - begun < 3.8
        end.set()


def test_the_event_loop_goes_on_while_an_asynchronous_client_closes() -> None:
    end = threading.Event()

    async def run(server: Loopback) -> int:
        meterline = AsyncMeterline(server.url, buffer=IMPATIENT)
        meterline.track_event("llm.usage", "alice")
        turns = 0
        closing = asyncio.create_task(meterline.close())
        while not closing.done():
            await asyncio.wait([closing], timeout=0.01)
            turns += 1
        return turns

    with loopback(lambda _: Reply(200, {}) if end.wait(30) else Reply(503)) as server:
        assert asyncio.run(run(server)) > 5
        end.set()


def test_buffers_send_through_the_callers_client() -> None:
    with loopback(lambda _: Reply(200, {})) as server:
        # As a proxy or a certificate would: only this client reaches the server.
        mount = {"http://meterline.test": httpx2.HTTPTransport(proxy=server.url)}
        with (
            httpx2.Client(mounts=mount) as http,
            Meterline("http://meterline.test", http_client=http) as meterline,
        ):
            meterline.track_event("llm.usage", "alice")
            meterline.record_response("alice", {}, provider="openai")
            assert meterline.buffer.flush()
            assert meterline.records.flush()
        assert len(server.asked) == 2


def test_an_asynchronous_clients_buffers_have_a_client_of_their_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run(url: str, http: httpx2.Client | None) -> None:
        buffer: dict[str, Any] = {} if http is None else {"http_client": http}
        async with (
            httpx2.AsyncClient() as own,
            AsyncMeterline(url, http_client=own, buffer=buffer) as meterline,
        ):
            meterline.track_event("llm.usage", "alice")
            assert await asyncio.to_thread(meterline.buffer.flush)

    with loopback(lambda _: Reply(200, {})) as server:
        with httpx2.Client(headers={"x-through": "mine"}) as http:
            asyncio.run(run(server.url, http))
        assert caplog.text == ""
        asyncio.run(run(server.url, None))
        assert [one.headers.get("x-through") for one in server.asked] == ["mine", None]
    assert "buffer={'http_client'" in caplog.text


def test_buffers_have_the_retries_and_the_time_of_the_client() -> None:
    tries = 0

    def answer(_: Asked) -> Reply:
        nonlocal tries
        tries += 1
        return Reply(200, {}) if tries > 1 or end.wait(30) else Reply(503)

    end = threading.Event()
    with (
        loopback(answer) as server,
        Meterline(
            server.url,
            timeout_seconds=0.2,
            retries=RetryPolicy(1, base_seconds=0.0),
            buffer={"retry_seconds": 3600.0, "max_age_seconds": 0.0},
        ) as meterline,
    ):
        meterline.track_event("llm.usage", "alice")
        assert meterline.buffer.flush(8)
        end.set()
