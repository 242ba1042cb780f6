"""The routers of meters, queries and events over a running sink, without a server."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from aggregator.api import events, meters, query
from aggregator.events import EventService
from aggregator.service import MeterService
from aggregator.stores.meters import SqlMeterStore
from meterline.kernel.access import SCOPES
from meterline.web.auth import Principal
from tests.support.api import app_of, client_of
from tests.support.clock import FixedClock
from tests.support.usage import Rig, canonical, running_sink, send


class Namespace:
    """An authenticator that lets everybody into one namespace."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def authenticate(self, authorization: str | None) -> Principal:
        return Principal(self.name, frozenset(SCOPES))


@dataclass
class Api:
    """An open server's answers, in a namespace of its own; events go straight into the log."""

    rig: Rig
    http: httpx.AsyncClient
    namespace: str
    sent: int = 0
    waiting: bool = False

    async def meter(self, slug: str = "tokens", aggregation: str = "SUM", **fields: Any) -> Any:
        body = {"slug": slug, "aggregation": aggregation, "eventType": "llm.usage", **fields}
        if aggregation != "COUNT":
            body.setdefault("valueProperty", "$.tokens")
        response = await self.http.post("/api/v1/meters", json=body)
        assert response.status_code == 201, response.text
        return response.json()

    async def send(self, data: str | None = "{}", **attributes: Any) -> None:
        """Send one event; the next request sees it."""
        self.sent += 1
        name = attributes.pop("id", f"e{self.sent}")
        event = canonical(name, data, **attributes)
        await send(self.rig.log, [event], namespace=self.namespace)
        self.waiting = True

    async def settle(self, _request: httpx.Request) -> None:
        """Before a request: what was sent has to be visible."""
        if self.waiting:
            await self.rig.settle()
            self.waiting = False

    async def rows(self, slug: str = "tokens", **params: Any) -> Any:
        response = await self.http.get(f"/api/v1/meters/{slug}/query", params=params)
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "application/json"
        return response.json()["data"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with running_sink(tmp_path_factory.mktemp("api")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def api(rig: Rig) -> AsyncIterator[Api]:
    namespace = f"test{next(_numbers)}"
    service = MeterService(SqlMeterStore(rig.database), rig.sink.registry, rig.engine, FixedClock())
    app = app_of(
        Namespace(namespace),  # type: ignore[arg-type]
        meters.router(service),
        query.router(service),
        events.router(EventService(service, rig.sink.registry, rig.engine)),
    )
    async with client_of(app) as client:
        api = Api(rig, client, namespace)
        client.event_hooks = {"request": [api.settle]}
        yield api


_numbers = itertools.count(1)
