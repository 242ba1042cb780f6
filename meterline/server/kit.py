"""The kit for AI products in a server: credits and holds, records and prices, plans and checks.

Each part says in its own module what it is made of (`kit_usage.py`, …); here they are put together.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from typing import TypeVar

from fastapi import APIRouter

from aggregator.events import EventService
from entitlements.builtin import BuiltIns
from entitlements.credits.rates import CreditOptions
from entitlements.events import EventWriter
from entitlements.holds.limits import HoldLimits
from entitlements.plans.options import PlanOptions, StripeOptions
from entitlements.usage_records.options import UsageLimits
from entitlements.usage_records.prices import PriceService
from ingest.service import IngestService
from meterline.kernel.clock import Clock
from meterline.server.app import HotRoute
from meterline.server.balances import Balances
from meterline.server.kit_credits import (
    CataloguePrices,
    CreditKit,
    CreditParts,
    MemberBans,
    running_credits,
)
from meterline.server.kit_plans import HeldBy, ParmotRecords, PlanParts, running_plans
from meterline.server.kit_usage import (
    AggregatedUsage,
    HeldTransactions,
    UsageKit,
    UsageParts,
    running_usage,
)
from meterline.server.metering import Metering
from meterline.server.sections import Section
from meterline.server.settings import Settings
from meterline.server.stores import Stores
from meterline.server.writing import AggregatorMeters, IngestWriter
from meterline.web.asgi import ASGIApp, ErrorBoundary
from meterline.web.auth import Authenticator
from meterline.web.idempotency import IdempotencyLimits

T = TypeVar("T")

Erase = Callable[[str, str], Awaitable[None]]
"""Forgets a subject of a namespace."""


@dataclass(frozen=True, slots=True)
class KitParts:
    """What the kit is made of."""

    settings: Settings
    stores: Stores
    metering: Metering
    balances: Balances
    ingest: IngestService
    authenticator: Authenticator
    clock: Clock


@dataclass(frozen=True, slots=True)
class Kit:
    """What the kit shows. Its routers come first: paths of entitlements and subjects match some."""

    routers: list[APIRouter] = field(default_factory=list)
    hot_routes: list[HotRoute] = field(default_factory=list)
    shortcuts: list[Callable[[ASGIApp], ASGIApp]] = field(default_factory=list)
    erasers: list[Erase] = field(default_factory=list)

    async def erase(self, namespace: str, subject: str) -> None:
        """Forget what the kit knows of a subject, beside its events."""
        for eraser in self.erasers:
            await eraser(namespace, subject)


@asynccontextmanager
async def running_kit(parts: KitParts) -> AsyncIterator[Kit]:
    """The kit, with what it does in the background, until the block ends."""
    writer = IngestWriter(parts.ingest)
    features = parts.balances.services.features
    built_ins = BuiltIns(AggregatorMeters(parts.metering.meters), features)
    async with (
        running_credits(_credit_parts(parts, writer, built_ins)) as credit,
        running_usage(_usage_parts(parts, writer, built_ins, credit)) as usage,
        running_plans(_plan_parts(parts, built_ins, credit, usage)) as plans,
    ):
        usage.usage.on_recorded.append(plans.recorded)
        once = credit.idempotency(parts.authenticator)
        check = plans.hot_route(parts.authenticator)
        yield Kit(
            routers=[*credit.routers, *plans.routers, *usage.routers()],
            hot_routes=[replace(check, endpoint=ErrorBoundary(once(check.endpoint)))],
            shortcuts=[credit.shortcut(parts.authenticator), once],
            erasers=[usage.erase, plans.erase],
        )


def _credit_parts(parts: KitParts, writer: EventWriter, built_ins: BuiltIns) -> CreditParts:
    settings, balances = parts.settings, parts.balances
    prices = PriceService(parts.stores.database, parts.clock, _usage_limits(settings))
    return CreditParts(
        means=balances.means,
        plain=balances.plain,
        entitlements=balances.services.entitlements,
        is_tracked=balances.usage.is_tracked,
        writer=writer,
        builtins=built_ins,
        prices=CataloguePrices(prices),
        bans=MemberBans(balances.hot, parts.clock),
        holds=_options(HoldLimits, settings.credits),
        credits=_options(CreditOptions, settings.credits),
        idempotency=key_limits(settings),
    )


def _usage_parts(
    parts: KitParts, writer: EventWriter, built_ins: BuiltIns, credit: CreditKit
) -> UsageParts:
    stores, metering = parts.stores, parts.metering
    return UsageParts(
        database=stores.database,
        meters=metering.meters,
        events=EventService(metering.meters, metering.registry, stores.store.queries),
        reader=metering.usage,
        writer=writer,
        builtins=built_ins,
        transactions=HeldTransactions(credit.holds),
        clock=parts.clock,
        limits=_usage_limits(parts.settings),
    )


def _plan_parts(
    parts: KitParts, built_ins: BuiltIns, credit: CreditKit, usage: UsageKit
) -> PlanParts:
    settings, balances = parts.settings, parts.balances
    return PlanParts(
        means=balances.means,
        values=balances.services.values,
        hot=balances.hot,
        tracking=balances.usage,
        built_ins=built_ins,
        holds=HeldBy(credit.holds, balances.means),
        recorder=ParmotRecords(usage.usage),
        meters=AggregatedUsage(parts.metering.meters, parts.metering.usage),
        options=_options(PlanOptions, settings.plans),
        stripe=_stripe_options(settings),
    )


def key_limits(settings: Settings) -> IdempotencyLimits:
    """Of requests with an `Idempotency-Key`."""
    return _options(IdempotencyLimits, settings.idempotency)


def _usage_limits(settings: Settings) -> UsageLimits:
    return _options(UsageLimits, settings.usage)


def _stripe_options(settings: Settings) -> StripeOptions:
    given = settings.stripe.model_dump(exclude={"webhook_secrets"})
    secrets = tuple(one.get_secret_value() for one in settings.stripe.webhook_secrets)
    return StripeOptions(**given, webhook_secrets=secrets)


def _options(kind: type[T], section: Section) -> T:
    """The options of a kind that a section holds, perhaps beside those of another one."""
    names = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: getattr(section, name) for name in names})
