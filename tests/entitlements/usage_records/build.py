"""The API of usage records over events in a list, which count as the store counts them."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx

from aggregator.filters import FilterLimits, matches, parse_filter
from entitlements.builtin import USAGE_TYPE, BuiltIns
from entitlements.events import UsageEvent
from entitlements.model import Feature
from entitlements.specs import FeatureSpec
from entitlements.usage_records.api import price_routes, routes
from entitlements.usage_records.model import Listed, Position, RecordFilter, UsageRecord
from entitlements.usage_records.naming import Names
from entitlements.usage_records.options import UsageLimits
from entitlements.usage_records.ports import Recorded, TotalsQuery
from entitlements.usage_records.prices import PriceService
from entitlements.usage_records.service import UsageMeans, UsageService
from entitlements.usage_records.summary import SummaryService
from meterline.db.engine import Database
from meterline.kernel.errors import NotFoundError, UnavailableError
from meterline.kernel.instants import to_micros
from meterline.kernel.meters import MeterSpec
from meterline.server.writing import plain
from meterline.web.asgi import ASGIApp
from tests.support.api import app_of, client_of
from tests.support.clock import FixedClock
from tests.support.entitlements import OneNamespace, exact


@dataclass
class Store:
    """An event writer, a reader of records and meters, over a list."""

    clock: FixedClock
    events: list[tuple[str, UsageEvent]] = field(default_factory=list)
    conflicts: list[UsageEvent] = field(default_factory=list)
    meters: dict[str, list[MeterSpec]] = field(default_factory=dict)
    features: dict[tuple[str, str], Feature] = field(default_factory=dict)
    writes: int = 0
    broken: bool = False

    async def write(self, namespace: str, events: Sequence[UsageEvent]) -> None:
        self.writes += 1
        if self.broken:
            raise UnavailableError("the log is away")
        for event in events:
            json.dumps(plain(event.data))
            known = [
                one
                for ns, one in self.events
                if (ns, one.source, one.id) == (namespace, event.source, event.id)
            ]
            if not known:
                self.events.append((namespace, event))
            elif known[0] != event:
                self.conflicts.append(event)

    async def list(self, namespace: str, wanted: RecordFilter, limit: int) -> Sequence[Listed]:
        found = []
        for offset, (ns, one) in enumerate(self.events, 1):
            place = Position(to_micros(one.time), 0, offset, 1)
            if ns != namespace or one.type != USAGE_TYPE:
                continue
            if not _within(one.time, wanted.begin, wanted.end):
                continue
            if wanted.subject not in (None, one.subject):
                continue
            if any(one.data.get(name) != text for name, text in wanted.data.items()):
                continue
            if wanted.before is None or _key(place) < _key(wanted.before):
                found.append(Listed(place, UsageRecord(one.id, one.subject, one.time, one.data)))
        found.sort(key=lambda one: _key(one.position), reverse=True)
        return found[:limit]

    async def totals(
        self, namespace: str, slug: str, query: TotalsQuery
    ) -> Sequence[tuple[Mapping[str, str], Decimal]]:
        spec = next((one for one in self.meters.get(namespace, []) if one.slug == slug), None)
        if spec is None:
            raise NotFoundError("there is no such meter")
        limits = FilterLimits()
        filters = {key: parse_filter(one, key, limits) for key, one in query.filters.items()}
        sums: dict[tuple[str, ...], Decimal] = {}
        for ns, one in self.events:
            texts = {key: _dim(one.data, path) for key, path in spec.group_by.items()}
            value = _value(one.data, spec)
            if (
                ns == namespace
                and one.type == spec.event_type
                and _within(one.time, query.begin, query.end)
                and query.subject in (None, one.subject)
                and all(matches(condition, texts[key]) for key, condition in filters.items())
                and value is not None
            ):
                group = tuple(texts[key] for key in query.groups)
                sums[group] = sums.get(group, Decimal(0)) + value
        return [(dict(zip(query.groups, key, strict=True)), sums[key]) for key in sums]

    async def wait(self, timeout_seconds: float) -> None:
        return None

    async def as_of(self) -> datetime:
        return self.clock()

    async def ensure(self, namespace: str, specs: Sequence[MeterSpec]) -> None:
        self.meters[namespace] = list(specs)

    async def get(self, namespace: str, id_or_key: str) -> Feature:
        found = self.features.get((namespace, id_or_key))
        if found is None:
            raise NotFoundError("there is no such feature")
        return found

    async def create(self, namespace: str, spec: FeatureSpec) -> Feature:
        now = self.clock()
        made = Feature(
            id=spec.key,
            namespace=namespace,
            key=spec.key,
            name=spec.name,
            meter_slug=spec.meter_slug,
            filters=spec.filters,
            metadata={},
            created_at=now,
            updated_at=now,
        )
        self.features[namespace, spec.key] = made
        return made


class OneTransaction:
    """Of the account `acme`."""

    async def is_of(self, namespace: str, transaction_id: str, subject: str) -> bool | None:
        known = (namespace, transaction_id) == ("default", "tx-1")
        return subject == "acme" if known else None


@dataclass
class Kit:
    http: httpx.AsyncClient
    clock: FixedClock
    app: ASGIApp
    store: Store
    usage: UsageService
    prices: PriceService
    told: list[Recorded] = field(default_factory=list)

    async def call(
        self, method: str, path: str, body: Any = None, status: int = 200, **options: Any
    ) -> Any:
        """The answer, numbers as decimals."""
        given: dict[str, Any] = {}
        headers = options.pop("headers", {})
        if body is not None:
            text = body if isinstance(body, str) else json.dumps(body)
            given = {"content": text}
            headers = {"content-type": "application/json", **headers}
        response = await self.http.request(
            method, f"/api/v1{path}", headers=headers, **given, **options
        )
        assert response.status_code == status, response.text
        kind = "application/json" if status < 400 else "application/problem+json"
        if status == 204:
            return None
        assert response.headers["content-type"] == kind
        return exact(response.text)

    async def record(self, status: int = 201, **fields: Any) -> Any:
        body = {"context": "system", "modelId": "gpt-4o", "inputTokens": 1_000, **fields}
        body = {name: value for name, value in body.items() if value is not None}
        return await self.call("POST", "/usage", body, status)

    async def track(self, status: int = 201, **fields: Any) -> Any:
        return await self.call("POST", "/track", {"key": "app", **fields}, status)

    async def refused(self, path: str, body: Any) -> tuple[str, str]:
        """Where and why a body is refused."""
        problem = await self.call("POST", path, body, 400)
        fault = problem["extensions"]["validationErrors"][0]
        return fault["where"], fault["reason"]


@asynccontextmanager
async def running_kit(database: Database, **limits: Any) -> AsyncIterator[Kit]:
    clock = FixedClock(datetime.fromisoformat("2026-11-01T12:00:00+00:00"))
    store = Store(clock)
    bounds = UsageLimits(**limits)
    prices = PriceService(database, clock, bounds)
    names = Names(database, clock, bounds)
    means = UsageMeans(
        prices=prices,
        builtins=BuiltIns(store, store),
        writer=store,
        transactions=OneTransaction(),
        records=store,
        meters=store,
        names=names,
        clock=clock,
    )
    usage = UsageService(means)
    told: list[Recorded] = []

    async def hear(one: Recorded) -> None:
        told.append(one)

    usage.on_recorded.append(hear)
    app = app_of(
        OneNamespace(),  # type: ignore[arg-type]
        routes.router(usage, SummaryService(store)),
        price_routes.router(prices, clock),
    )
    async with client_of(app) as client:
        yield Kit(client, clock, app, store, usage, prices, told)
    await names.close()


def _within(time: datetime, begin: datetime | None, end: datetime | None) -> bool:
    return (begin is None or begin <= time) and (end is None or time < end)


def _key(place: Position) -> tuple[int, int]:
    return place.micros, place.offset


def _dim(data: Mapping[str, Any], path: str) -> str:
    value = data.get(path.removeprefix("$."))
    return value if isinstance(value, str) else ""


def _value(data: Mapping[str, Any], spec: MeterSpec) -> Decimal | None:
    if spec.value_property is None:
        return Decimal(1)
    text = data.get(spec.value_property.removeprefix("$."))
    return None if text is None else Decimal(text)
