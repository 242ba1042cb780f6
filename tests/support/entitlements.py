"""Entitlements without a server: services and routers over meters that a test fills by hand."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from entitlements.limits import EntitlementLimits
from entitlements.services.means import Means
from entitlements.usage import UsageQuery
from meterline.db.engine import Database
from meterline.kernel.access import SCOPES
from meterline.kernel.errors import UnavailableError
from meterline.kernel.instants import parse_instant
from meterline.kernel.meters import Meter
from meterline.kernel.periods import Period
from meterline.server.entitled import EntitlementServices
from meterline.web.auth import Principal
from tests.entitlements.balance.usage import Event, MemoryMeter
from tests.support.api import app_of, client_of
from tests.support.clock import FixedClock
from tests.support.database import migrated
from tests.support.usage import meter


@dataclass(frozen=True)
class Used:
    """One event of a subject, as a meter sees it."""

    namespace: str
    meter: str
    subject: str
    event: Event
    dims: dict[str, str]


@dataclass
class HandMeters:
    """A `UsageReader` over events in a list. It counts its reads."""

    clock: FixedClock
    meters: dict[tuple[str, str], Meter] = field(default_factory=dict)
    used: list[Used] = field(default_factory=list)
    hidden: list[Used] = field(default_factory=list)
    """Acknowledged, and not visible until somebody waits."""
    reads: list[UsageQuery] = field(default_factory=list)
    stuck: bool = False

    def add(self, one: Meter) -> None:
        self.meters[one.namespace, one.slug] = one

    async def read(self, query: UsageQuery, spans: Sequence[Period]) -> list[Decimal | None]:
        self.reads.append(query)
        place = (query.namespace, query.meter_slug, query.subject)
        events = [
            one.event
            for one in self.used
            if (one.namespace, one.meter, one.subject) == place
            and all(one.dims.get(key, "") in texts for key, texts in query.filters.items())
        ]
        aggregation = self.meters[query.namespace, query.meter_slug].aggregation
        return MemoryMeter(aggregation, events).read(spans)

    async def as_of(self) -> datetime:
        return self.clock() - timedelta(milliseconds=250)

    async def wait(self, timeout_seconds: float) -> None:
        if self.stuck:
            raise UnavailableError(f"acknowledged events are not visible after {timeout_seconds} s")
        self.used += self.hidden
        self.hidden.clear()

    async def meter(self, namespace: str, slug: str) -> Meter | None:
        return self.meters.get((namespace, slug))


class OneNamespace:
    """An authenticator that lets everybody into the namespace that a header names."""

    async def authenticate(self, authorization: str | None) -> Principal:
        return Principal(authorization or "default", frozenset(SCOPES))


@dataclass
class Bench:
    """The HTTP API of entitlements, with a clock and meters that the test moves."""

    http: httpx.AsyncClient
    clock: FixedClock
    meters: HandMeters
    services: EntitlementServices
    database: Database

    def at(self, time: str) -> None:
        """Set the clock."""
        self.clock.now = parse_instant(time)

    def use(
        self,
        amount: str | int = 1,
        time: str | None = None,
        *,
        subject: str = "alice",
        slug: str = "tokens",
        namespace: str = "default",
        text: str = "",
        hidden: bool = False,
        **dims: str,
    ) -> None:
        """Add an event; before now when no time is given."""
        when = parse_instant(time) if time else self.clock() - timedelta(milliseconds=1)
        one = Used(namespace, slug, subject, Event(when, Decimal(amount), text), dims)
        (self.meters.hidden if hidden else self.meters.used).append(one)

    async def call(
        self, method: str, path: str, body: Any = None, status: int = 200, **options: Any
    ) -> Any:
        """The answer, numbers as decimals; its status must be the expected one."""
        content = body if isinstance(body, str | bytes) else None
        given = {"content": content} if content is not None else {"json": body}
        if body is None:
            given = {}
        headers = {**options.pop("headers", {})}
        if body is not None:
            headers.setdefault("content-type", "application/json")
        response = await self.http.request(
            method, f"/api/v1{path}", headers=headers, **given, **options
        )
        assert response.status_code == status, response.text
        kind = "application/json" if status < 400 else "application/problem+json"
        if status == 204:
            assert response.content == b""
            return None
        assert response.headers["content-type"] == kind
        return exact(response.text)

    async def feature(self, key: str = "tokens", **fields: Any) -> Any:
        fields = {"meterSlug": "tokens", **fields}
        body = {"key": key, "name": key, **{k: v for k, v in fields.items() if v is not None}}
        return await self.call("POST", "/features", body, 201)

    async def entitle(self, subject: str = "alice", status: int = 201, **fields: Any) -> Any:
        body = {"type": "metered", "featureKey": "tokens", **fields}
        if body["type"] == "metered":
            body.setdefault("usagePeriod", {"interval": "MONTH"})
        return await self.call("POST", f"/subjects/{subject}/entitlements", body, status)

    async def grant(
        self, amount: Any = 100, subject: str = "alice", ref: str = "tokens", **fields: Any
    ) -> Any:
        status = fields.pop("status", 201)
        path = f"/subjects/{subject}/entitlements/{ref}/grants"
        return await self.call("POST", path, {"amount": amount, **fields}, status)

    async def value(self, subject: str = "alice", ref: str = "tokens", **params: Any) -> Any:
        path = f"/subjects/{subject}/entitlements/{ref}/value"
        return await self.call("GET", path, params=params)

    async def reset(self, body: Any = None, status: int = 204, ref: str = "tokens") -> Any:
        return await self.call("POST", f"/subjects/alice/entitlements/{ref}/reset", body, status)


def exact(text: str) -> Any:
    """JSON without floats."""
    return json.loads(text, parse_float=Decimal)


@asynccontextmanager
async def running_bench(folder: Path, **limits: Any) -> AsyncIterator[Bench]:
    """A bench with the SUM meter `tokens`, which has the groupBy key `model`."""
    clock = FixedClock()
    meters = HandMeters(clock)
    async with migrated(folder) as database:
        means = Means(database, meters, clock, replace(EntitlementLimits(), **limits))
        services = EntitlementServices.over(means)
        app = app_of(OneNamespace(), *services.routers())  # type: ignore[arg-type]
        async with client_of(app) as client:
            meters.add(meter("tokens", model="$.model"))
            yield Bench(client, clock, meters, services, database)
