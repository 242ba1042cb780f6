"""The whole application in this process, on a temporary folder, under a clock that is set."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from meterline.kernel.clock import Clock
from meterline.kernel.errors import MeterlineError
from meterline.server.assembly import assembled
from meterline.server.sections import ServerSettings, SinkSettings
from meterline.server.settings import Settings
from meterline.web.json import encode

_TIMEOUT_SECONDS = 60.0


class RefusedError(MeterlineError):
    """The application refused a request."""


class SimulatedClock:
    """A clock that stands still until it is set, to any time."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        """The time it is set to."""
        return self.now


class World:
    """An application that nobody else uses, and its clock."""

    def __init__(self, client: httpx.AsyncClient, clock: SimulatedClock) -> None:
        self.client = client
        self.clock = clock

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Sequence[tuple[str, str]] = (),
        content_type: str = "application/json",
    ) -> Any:
        """The answer's JSON, with every digit; a refusal is a `RefusedError`."""
        response = await self.client.request(
            method,
            path,
            params=list(params) or None,
            content=None if body is None else encode(body),
            headers={"content-type": content_type} if body is not None else None,
        )
        if response.is_error:
            problem = response.json()
            raise RefusedError(problem.get("detail") or problem.get("title"))
        return json.loads(response.text, parse_float=Decimal) if response.content else None


@asynccontextmanager
async def new_world(now: datetime) -> AsyncIterator[World]:
    """An empty application; it goes away with the block."""
    clock = SimulatedClock(now)
    typed: Clock = clock
    with TemporaryDirectory(prefix="meterline-scenario-") as folder:
        settings = Settings(
            server=ServerSettings(data_dir=Path(folder)), sink=SinkSettings(linger_seconds=0)
        )
        async with (
            assembled(settings, typed, lambda _: None) as assembly,
            httpx.AsyncClient(
                transport=httpx.ASGITransport(assembly.app),
                base_url="http://scenario.local",
                timeout=_TIMEOUT_SECONDS,
            ) as client,
        ):
            yield World(client, clock)
