"""A stop under load: what was acknowledged is there at the next start, once."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from tests.support.server import MeterlineServer, eventually, run_cli

_METER = {"slug": "calls", "aggregation": "COUNT", "eventType": "call"}
_BATCH = 20


def _batch(worker: int, number: int) -> bytes:
    return json.dumps(
        [
            {
                "specversion": "1.0",
                "id": f"{worker}-{number}-{index}",
                "source": "test",
                "type": "call",
                "subject": "s",
            }
            for index in range(_BATCH)
        ]
    ).encode()


class _Count:
    """Events acknowledged, and whether they are many."""

    def __init__(self) -> None:
        self.events = 0
        self.many = asyncio.Event()

    def add(self) -> None:
        self.events += _BATCH
        if self.events >= 200 * _BATCH:
            self.many.set()


async def _send_until_it_is_gone(url: str, worker: int, acknowledged: _Count) -> None:
    headers = {"content-type": "application/cloudevents-batch+json"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
        for number in range(100_000):
            try:
                response = await client.post("/api/v1/events", content=_batch(worker, number))
            except httpx.TransportError:
                return
            if response.status_code == 204:
                acknowledged.add()
            else:
                assert response.status_code == 503


async def _load_and_stop(server: MeterlineServer) -> int:
    acknowledged = _Count()
    senders = [
        asyncio.create_task(_send_until_it_is_gone(server.url, worker, acknowledged))
        for worker in range(4)
    ]
    await acknowledged.many.wait()
    server.terminate()
    await asyncio.gather(*senders)
    return acknowledged.events


async def test_sigterm_under_load_loses_nothing(tmp_path: Path) -> None:
    with MeterlineServer(tmp_path / "data") as server:
        with server.client() as client:
            assert client.post("/api/v1/meters", json=_METER).status_code == 201
        acknowledged = await _load_and_stop(server)
        assert server.wait() == 0
        assert any('"event": "stopped"' in line for line in server.log), server.tail()
        assert not any('"level": "error"' in line for line in server.log), server.tail()
        server.restart()
        with server.client() as client:

            def counted() -> int:
                rows = client.get("/api/v1/meters/calls/query").json()["data"]
                return int(rows[0]["value"]) if rows else 0

            eventually(lambda: counted() >= acknowledged, f"{acknowledged} counted")
            # A batch whose answer was cut off may count too; nothing counts twice.
            assert acknowledged <= counted() <= acknowledged + 4 * _BATCH
        assert server.stop() == 0
        doctor = run_cli("doctor", "--store", "--data-dir", server.data_dir, cwd=tmp_path)
        assert "its tables agree, over 1 series" in doctor.stdout, doctor.stdout + doctor.stderr


async def test_a_request_in_flight_is_finished(tmp_path: Path) -> None:
    """Its body is half sent when the server is told to stop."""
    with MeterlineServer(tmp_path / "data") as server:
        body = _batch(0, 0)
        told = asyncio.Event()

        async def slow_body() -> AsyncIterator[bytes]:
            yield body[:40]
            server.terminate()
            await asyncio.to_thread(
                eventually, lambda: any("stopping" in line for line in server.log), "stopping"
            )
            told.set()
            yield body[40:]

        headers = {"content-type": "application/cloudevents-batch+json"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=30) as client:
            response = await client.post("/api/v1/events", content=slow_body())
        assert told.is_set()
        assert response.status_code == 204
        assert server.wait() == 0
