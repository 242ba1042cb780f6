"""Holds over a sink that a test moves by hand."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import httpx
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.access import Access, metered_access
from entitlements.balance import burn, plan
from entitlements.balance.exact import ROOM, ZERO
from entitlements.balance.standing import Standing, next_change
from entitlements.builtin import BuiltIns
from entitlements.credits.rates import CreditOptions, Tokens
from entitlements.events import UsageEvent
from entitlements.holds import store
from entitlements.holds.limits import HoldLimits
from entitlements.holds.model import Place
from entitlements.holds.service import HoldService
from entitlements.holds.settling import prepared
from entitlements.model import EntitlementType
from entitlements.services.entitlements import EntitlementService
from entitlements.services.features import FeatureService
from entitlements.services.grants import GrantService
from entitlements.services.means import Means
from entitlements.services.values import ValueService
from entitlements.specs import EntitlementSpec, FeatureSpec, GrantSpec, RecurrenceSpec
from entitlements.stores import live
from entitlements.stores.features import using_meter
from entitlements.stores.held import held_of
from entitlements.stores.live import LiveState
from meterline.db.engine import Database
from meterline.db.steps import on
from meterline.db.tables import upsert
from meterline.kernel.errors import ForbiddenError
from meterline.kernel.jsonpath import find, parse_path
from meterline.kernel.meters import MeterSpec
from meterline.kernel.periods import parse_interval
from meterline.kernel.quantity import parse_value
from meterline.kernel.usage import HOLD_SOURCE
from meterline.server.entitled import EntitlementServices
from meterline.server.kit_credits import CreditKit, CreditParts, running_credits
from meterline.web.idempotency import IdempotencyLimits
from meterline.web.json import encode
from tests.entitlements.balance.usage import Event
from tests.support.api import app_of, assert_problem, client_of
from tests.support.clock import FixedClock
from tests.support.entitlements import HandMeters, OneNamespace, Used, exact
from tests.support.usage import meter

SERIES = 1
NAMESPACE = "default"


@dataclass
class HandSink:
    """An `EventWriter`; what is written counts when the sink is told to catch up."""

    database: Database
    meters: HandMeters
    waiting: list[tuple[str, UsageEvent]] = field(default_factory=list)
    seen: set[tuple[str, str, str]] = field(default_factory=set)
    broken: Exception | None = None
    """What `write` raises."""

    async def write(self, namespace: str, events: Sequence[UsageEvent]) -> None:
        await asyncio.sleep(0)
        if self.broken is not None:
            raise self.broken
        self.waiting += [(namespace, one) for one in events]

    async def catch_up(self) -> None:
        """Count all that was written, each event once, and settle, in one transaction."""
        waiting, self.waiting = self.waiting, []
        fresh = []
        for namespace, event in waiting:
            key = (namespace, event.source, event.id)
            if key not in self.seen:
                self.seen.add(key)
                fresh.append((namespace, event))
        settled = [(of, event.id) for of, event in fresh if event.source == HOLD_SOURCE]
        async with self.database.read() as conn:
            settle = await prepared(conn, settled)
        async with self.database.transaction() as conn:
            for namespace, event in fresh:
                await self._count(conn, namespace, event)
            await settle(conn)

    async def _count(self, conn: AsyncConnection, namespace: str, event: UsageEvent) -> None:
        raw = encode(event.data).decode()
        for one in self.meters.meters.values():
            if one.namespace != namespace or one.event_type != event.type:
                continue
            amount: object = Decimal(1)
            if one.value_property is not None:
                amount = parse_value(find(raw, parse_path(one.value_property)))
            assert isinstance(amount, Decimal)
            dims = {key: event.data.get(key, "") for key in one.group_by}
            self.meters.used.append(
                Used(namespace, one.slug, event.subject, Event(event.time, amount), dims)  # type: ignore[arg-type]
            )
            await self._move(conn, namespace, one.slug, event, amount)

    async def _move(
        self, conn: AsyncConnection, namespace: str, slug: str, event: UsageEvent, amount: Decimal
    ) -> None:
        """As the sink moves a meter's live rows on; what is late throws them away."""
        table = live.live_entitlements
        keys = [one.key for one in await using_meter(conn, namespace, slug)]
        query = sa.select(table).where(
            table.c.namespace == namespace, table.c.subject == event.subject, table.c.valid,
            table.c.feature_key.in_(keys),
        )  # fmt: skip
        for row in (await conn.execute(query.with_for_update())).all():
            standing = live.decode(
                live.Stored(row.entitlement_id, row.series, row.usage, row.due, row.state)
            ).state.standing
            if standing is None:
                continue
            change = sa.update(table).where(table.c.entitlement_id == row.entitlement_id)
            if event.time < standing.opening.at:
                await conn.execute(change.values(valid=False))
            else:
                usage = str(ROOM.add(Decimal(row.usage), amount))
                await conn.execute(change.values(usage=usage))


class HandLive:
    """Makes live rows of what `HandMeters` have counted."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.plain: ValueService
        self.meters: HandMeters
        self.blind = False
        """Makes no rows, as while a meter is being filled."""

    async def look_up(self, *_: object) -> Access | None:
        return None

    async def get(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        found = await self.plain.load(namespace, subject, feature_key, now)
        entitlement = found.entitlement
        if now not in entitlement.lifetime or self.blind:
            return None
        if entitlement.metered is None:
            return None
        metered = await self.plain.metered(found)
        planned = plan(metered.allowance, now)
        run = burn(planned, await self.meters.read(metered.query, planned.spans))
        last = planned.spans[-1] if planned.spans else None
        usage = Decimal(0)
        if last is not None and last.start == run.opening.at:
            usage = (await self.meters.read(metered.query, [last]))[0] or Decimal(0)
        state = LiveState(
            feature_key,
            entitlement.lifetime.start,
            entitlement.lifetime.end,
            is_soft_limit=entitlement.metered.is_soft_limit,
            standing=Standing(run.opening, next_change(metered.allowance, now)),
        )
        values = {
            "entitlement_id": entitlement.id, "namespace": namespace, "subject": subject,
            "feature_key": feature_key, "version": 1, "valid": True, "series": SERIES,
            "counts": False, "filters": [], "since": 0, "usage": str(usage), "due": "",
            "state": live.write_state(state),
        }  # fmt: skip
        async with self._database.transaction() as conn:
            names = [name for name in values if name != "entitlement_id"]
            statement = upsert(conn, live.live_entitlements, ["entitlement_id"], names)
            await conn.execute(statement.values(**values))
        async with self._database.read() as conn:
            held = (await held_of(conn, namespace, subject, now)).get(feature_key, (ZERO, ZERO))
        return metered_access(
            run.balance,
            entitlement.lifetime,
            is_soft_limit=entitlement.metered.is_soft_limit,
            held=held[0],
            pending=held[1],
        )

    async def invalidate(self, conn: AsyncConnection, entitlement_id: str) -> None:
        await live.invalidate(conn, entitlement_id)


@dataclass
class Holding:
    """Services of holds, and the clock, meters and sink under them."""

    database: Database
    clock: FixedClock
    meters: HandMeters
    sink: HandSink
    live: HandLive
    means: Means
    plain: ValueService
    features: FeatureService
    entitlements: EntitlementService
    grants: GrantService
    holds: HoldService

    async def entitle(
        self, subject: str = "ann", feature: str = "tokens", *, soft: bool = False
    ) -> None:
        spec = EntitlementSpec(
            EntitlementType.METERED,
            feature,
            usage_period=RecurrenceSpec(parse_interval("YEAR")),
            is_soft_limit=soft,
        )
        await self.entitlements.create(NAMESPACE, subject, spec)

    async def grant(self, amount: object, subject: str = "ann", feature: str = "tokens") -> None:
        spec = GrantSpec(Decimal(str(amount)))
        await self.grants.create(NAMESPACE, subject, feature, spec)

    async def standing(self, subject: str = "ann", feature: str = "tokens") -> tuple[str, str]:
        """What is held and pending, as texts."""
        place = Place(NAMESPACE, subject, feature)
        async with self.database.transaction() as conn:
            account = (await on(conn, store.lock([place]))).get(place)
        return ("0", "0") if account is None else (str(account.held), str(account.pending))

    async def settle(self) -> None:
        """Let every event of a confirmed hold be counted."""
        await self.holds.sender.flush()
        await self.sink.catch_up()

    async def usage(self, subject: str = "ann", feature: str = "tokens") -> Decimal:
        """What the meter says, as a full calculation answers."""
        self.clock.advance(0.001)
        access = await self.plain.value(NAMESPACE, subject, feature)
        assert access.metered is not None
        return access.metered.usage


@asynccontextmanager
async def holding(
    database: Database, clock: FixedClock | None = None, limits: HoldLimits | None = None
) -> AsyncIterator[Holding]:
    """Services with the SUM meter `tokens`, the COUNT meter `calls`, and a feature of each."""
    clock = clock or FixedClock()
    meters = HandMeters(clock)
    meters.add(meter("tokens", model="$.model"))
    sink, live_rows = HandSink(database, meters), HandLive(database)
    means = Means(database, meters, clock, live=live_rows)
    plain = ValueService(Means(database, meters, clock))
    live_rows.plain, live_rows.meters = plain, meters
    features = FeatureService(means)
    holds = HoldService(means, lambda series: series == SERIES, sink, limits)
    async with database.read() as conn:
        made = await conn.scalar(sa.text("SELECT count(*) FROM features"))
    if not made:
        await features.create(NAMESPACE, FeatureSpec("tokens", "tokens", "tokens"))
    try:
        yield Holding(
            database, clock, meters, sink, live_rows, means, plain, features,
            EntitlementService(means), GrantService(means), holds,
        )  # fmt: skip
    finally:
        await holds.close()


class HandMeterMaker:
    """Makes built-in meters for `HandMeters`."""

    def __init__(self, meters: HandMeters) -> None:
        self._meters = meters

    async def ensure(self, namespace: str, specs: Sequence[MeterSpec]) -> None:
        for one in specs:
            made = meter(one.slug, one.aggregation, one.value_property, type=one.event_type)
            self._meters.add(
                replace(
                    made, namespace=namespace, group_by=one.group_by, id=f"{namespace}-{one.slug}"
                )
            )


class HandPrices:
    """A dollar for a million tokens of the model `priced`, and no other price."""

    async def cost_usd(
        self, namespace: str, model: str, tokens: Tokens, at: datetime
    ) -> Decimal | None:
        if model != "priced":
            return None
        return Decimal(tokens.input + tokens.output) / 1_000_000


@dataclass
class HandBans:
    """Bans these, whom plans would know of in a server."""

    subjects: set[str] = field(default_factory=set)

    async def refusal(self, namespace: str, subject: str) -> ForbiddenError | None:
        return ForbiddenError("the subject is banned") if subject in self.subjects else None


@asynccontextmanager
async def crediting(on: Holding) -> AsyncIterator[CreditKit]:
    """The services of credits over those of holds; no worker runs."""
    parts = CreditParts(
        means=on.means,
        plain=on.plain,
        entitlements=on.entitlements,
        is_tracked=lambda series: series == SERIES,
        writer=on.sink,
        builtins=BuiltIns(HandMeterMaker(on.meters), on.features),
        prices=HandPrices(),
        bans=HandBans(),
        holds=HoldLimits(),
        credits=CreditOptions(markup=Decimal(2), credits_per_usd=Decimal(1000)),
        idempotency=IdempotencyLimits(wait_seconds=0.1),
    )
    async with running_credits(parts, work=False) as kit:
        yield kit


@dataclass
class HeldHttp:
    """The HTTP API of holds and credits."""

    http: httpx.AsyncClient
    on: Holding
    kit: CreditKit

    async def settle(self) -> None:
        await self.kit.holds.sender.flush()
        await self.on.sink.catch_up()
        self.on.clock.advance(0.001)

    async def call(
        self, method: str, path: str, body: Any = None, status: int = 200, **options: Any
    ) -> Any:
        """The answer, numbers as decimals; its status must be the expected one."""
        if body is not None:
            options["json" if not isinstance(body, str) else "content"] = body
            headers = options.setdefault("headers", {})
            headers.setdefault("content-type", "application/json")
        response = await self.http.request(method, f"/api/v1{path}", **options)
        assert response.status_code == status, response.text
        if status >= 400:
            return assert_problem(response, status)
        return exact(response.text) if response.content else None


@asynccontextmanager
async def holding_http(database: Database) -> AsyncIterator[HeldHttp]:
    """The API as a server has it: fast ways in front, and idempotency in front of all."""
    async with holding(database) as on, crediting(on) as kit:
        everybody: Any = OneNamespace()
        services = EntitlementServices.over(on.means)
        app = app_of(everybody, *kit.routers, *services.routers())
        app = kit.shortcut(everybody)(app)
        app = kit.idempotency(everybody)(app)
        async with client_of(app) as client:
            yield HeldHttp(client, on, kit)
