"""Plans over a sink that a test moves by hand, with their HTTP API."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx

from entitlements.balance.exact import ROOM
from entitlements.builtin import METERS, TOKENS, USAGE_GROUPS, USAGE_SOURCE, USAGE_TYPE, BuiltIns
from entitlements.events import UsageEvent
from entitlements.plans.options import PlanOptions, StripeOptions
from entitlements.services.values import ValueService
from entitlements.usage_records.ports import TotalsQuery
from meterline.db.engine import Database
from meterline.db.hot import open_hot_reads
from meterline.kernel.ids import new_ulid
from meterline.kernel.meters import MeterSpec
from meterline.pricing.usage import TokenUsage
from meterline.server.entitled import EntitlementServices
from meterline.server.kit_plans import HeldBy, PlanKit, PlanParts, running_plans
from meterline.web.asgi import ASGIApp, ErrorBoundary, Receive, Scope, Send
from tests.support.api import app_of, client_of
from tests.support.clock import FixedClock
from tests.support.entitlements import OneNamespace, exact
from tests.support.holding import NAMESPACE, Holding, holding
from tests.support.usage import meter

SECRET = "whsec_of_the_tests"


class HandMaker:
    """A `MeterMaker` over the meters of a test."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding

    async def ensure(self, namespace: str, specs: Sequence[MeterSpec]) -> None:
        for spec in specs:
            one = meter(
                spec.slug, spec.aggregation, spec.value_property, type=spec.event_type,
                namespace=namespace, **dict(spec.group_by),
            )  # fmt: skip
            self._holding.meters.add(one)


class HandTotals:
    """`UsageMeters` over the meters of a test."""

    def __init__(self, holding: Holding) -> None:
        self._holding = holding

    async def totals(
        self, namespace: str, slug: str, query: TotalsQuery
    ) -> Sequence[tuple[Mapping[str, str], Decimal]]:
        found: dict[tuple[str, ...], Decimal] = {}
        for one in self._holding.meters.used:
            if (one.namespace, one.meter) != (namespace, slug):
                continue
            if query.subject not in (None, one.subject):
                continue
            if query.begin is not None and one.event.time < query.begin:
                continue
            key = tuple(one.dims.get(group, "") for group in query.groups)
            found[key] = ROOM.add(found.get(key, Decimal(0)), one.event.amount)
        return [(dict(zip(query.groups, key, strict=True)), n) for key, n in found.items()]

    async def wait(self, timeout_seconds: float) -> None:
        await self._holding.meters.wait(timeout_seconds)


class HandRecords:
    """A recorder whose records cost a thousandth of a dollar a token."""

    def __init__(self, planning: "Planning") -> None:
        self._planning = planning

    async def record(
        self, namespace: str, subject: str, *, model: str, provider: str | None,
        usage: TokenUsage, metadata: dict[str, str],
    ) -> Decimal | None:  # fmt: skip
        tokens, cost = int(usage.total_tokens), usage.total_tokens / 1000
        await self._planning.use(tokens, cost, subject, namespace=namespace, model=model)
        return cost


@dataclass
class Planning:
    """Plans, and what moves under them."""

    holding: Holding
    kit: PlanKit
    http: httpx.AsyncClient
    clock: FixedClock
    database: Database

    async def call(
        self, method: str, path: str, body: Any = None, status: int = 200, **options: Any
    ) -> Any:
        """The answer, numbers as decimals; its status must be the expected one."""
        response = await self.send(method, path, body, **options)
        assert response.status_code == status, response.text
        return None if status == 204 else exact(response.text)

    async def send(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        path = path if path.startswith("/api/") else f"/api/v1{path}"
        if body is not None:
            options["content"] = body if isinstance(body, str | bytes) else json.dumps(body)
            options["headers"] = {"content-type": "application/json", **options.get("headers", {})}
        return await self.http.request(method, path, **options)

    async def plan(self, key: str = "pro", **fields: Any) -> Any:
        return await self.call("POST", "/plans", {"key": key, **fields}, 201)

    async def assign(self, plan: str = "pro", subject: str = "ann", **fields: Any) -> Any:
        return await self.call("PUT", f"/subjects/{subject}/plan", {"plan": plan, **fields})

    async def check(self, status: int = 200, subject: str = "ann", **fields: Any) -> Any:
        return await self.call("POST", "/check", {"subject": subject, **fields}, status)

    async def use(
        self,
        tokens: int,
        cost: object = 0,
        subject: str = "ann",
        *,
        namespace: str = NAMESPACE,
        model: str = "gpt-4o",
        priced: str = "catalogue",
    ) -> None:
        """Record a call, and let it be counted."""
        at = self.clock() - timedelta(milliseconds=1)
        data = {
            **dict.fromkeys(USAGE_GROUPS, ""),
            "model": model,
            "priced": priced,
            "totalTokens": str(tokens),
            "inputTokens": str(tokens),
            "outputTokens": "0",
            "cachedTokens": "0",
            "costUsd": str(cost),
        }
        event = UsageEvent(new_ulid(at), USAGE_SOURCE, USAGE_TYPE, subject, at, data)
        await self.holding.sink.write(namespace, [event])
        await self.holding.sink.catch_up()

    async def credits(self, subject: str = "ann") -> Decimal:
        """The balance of credits."""
        found = await self.call("GET", f"/subjects/{subject}/entitlements/credits/value")
        balance: Decimal = Decimal(found["balance"])
        return balance


class CheckFirst:
    """Sends checks to their endpoint, as the dispatcher of a server does."""

    def __init__(self, check: ASGIApp, others: ASGIApp) -> None:
        self._check = check
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_check = scope["type"] == "http" and scope["path"] == "/api/v1/check"
        await (self._check if is_check else self._others)(scope, receive, send)


@asynccontextmanager
async def planning(
    database: Database,
    url: str,
    *,
    stripe: StripeOptions | None = None,
    clock: FixedClock | None = None,
    **options: Any,
) -> AsyncIterator[Planning]:
    """Plans in the namespace `default`, over the built-in meters; the worker runs when told to."""
    async with holding(database, clock) as held:
        hot = open_hot_reads(url)
        values = ValueService(held.means)
        built_ins = BuiltIns(HandMaker(held), held.features)
        waiting: list[Planning] = []

        class Late:
            async def record(self, *args: Any, **fields: Any) -> Decimal | None:
                return await HandRecords(waiting[0]).record(*args, **fields)

        parts = PlanParts(
            held.means, values, hot, Tracked(), built_ins, HeldBy(held.holds, held.means), Late(),
            HandTotals(held), replace(PlanOptions(), **options),
            stripe or StripeOptions(webhook_secrets=(SECRET,)),
        )  # fmt: skip
        try:
            async with running_plans(parts, work=False) as kit:
                services = EntitlementServices.over(held.means)
                routers = [*kit.routers, *services.routers()]
                authenticator: Any = OneNamespace()
                app = app_of(authenticator, *routers)
                whole = CheckFirst(kit.hot_route(authenticator).endpoint, app)
                async with client_of(ErrorBoundary(whole)) as http:
                    waiting.append(Planning(held, kit, http, held.clock, database))
                    yield waiting[0]
        finally:
            await hot.close()


class Tracked:
    """The sink follows every series."""

    def is_tracked(self, series: int) -> bool:
        return True


__all__ = ["METERS", "NAMESPACE", "SECRET", "TOKENS", "Planning", "planning"]
