"""The part that holds and counts credits: holds, reservations, usage transactions, rates."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from fastapi import APIRouter

from entitlements.builtin import BuiltIns
from entitlements.credits import api as credits_api
from entitlements.credits.ports import Bans, Prices
from entitlements.credits.rates import CreditOptions, Tokens
from entitlements.credits.rating import RateService
from entitlements.credits.service import CreditService
from entitlements.credits.transactions import TransactionService
from entitlements.events import EventWriter
from entitlements.holds import api as holds_api
from entitlements.holds.api import FastHolds, HoldApi
from entitlements.holds.limits import HoldLimits
from entitlements.holds.service import HoldService
from entitlements.holds.worker import HoldWorker
from entitlements.plans import decide
from entitlements.plans.api.encode import refusal_json
from entitlements.plans.model import Ban
from entitlements.plans.stores import members
from entitlements.services.entitlements import EntitlementService
from entitlements.services.means import Means
from entitlements.services.values import ValueService
from entitlements.usage_records.prices import PriceService
from meterline.db.hot import HotReads
from meterline.db.idempotency import SqlRequestStore
from meterline.kernel.clock import Clock
from meterline.kernel.errors import ForbiddenError, ValidationError
from meterline.pricing.book import Asked
from meterline.pricing.usage import TokenUsage
from meterline.web.asgi import ASGIApp
from meterline.web.auth import Authenticator
from meterline.web.idempotency import Idempotency, IdempotencyLimits


@dataclass(frozen=True, slots=True)
class CreditParts:
    """What it is made of. `means` use live rows, `plain` does not; `entitlements` are over `means`.

    `is_tracked` says whether the sink follows a series: `MeterUsage.is_tracked`.
    """

    means: Means
    plain: ValueService
    entitlements: EntitlementService
    is_tracked: Callable[[int], bool]
    writer: EventWriter
    builtins: BuiltIns
    prices: Prices
    """`CataloguePrices` over the service of prices."""
    bans: Bans
    """`MemberBans` over what plans know of subjects."""
    holds: HoldLimits
    credits: CreditOptions
    idempotency: IdempotencyLimits


@dataclass(frozen=True, slots=True)
class CreditKit:
    """What holds and counts credits."""

    holds: HoldService
    credits: CreditService
    transactions: TransactionService
    rates: RateService
    worker: HoldWorker
    routers: Sequence[APIRouter]
    """They come before those of entitlements and subjects, whose paths match some of theirs."""
    requests: SqlRequestStore
    parts: CreditParts

    def shortcut(self, authenticator: Authenticator) -> Callable[[ASGIApp], ASGIApp]:
        """What answers the POSTs of holds before the framework does."""
        api = HoldApi(self.holds)
        return lambda app: FastHolds(api, authenticator, app)

    def idempotency(self, authenticator: Authenticator) -> Callable[[ASGIApp], ASGIApp]:
        """What remembers the answers to requests with an `Idempotency-Key`.

        It is the outermost shortcut, so that it stands before all the others.
        """
        clock, limits = self.parts.means.clock, self.parts.idempotency
        return lambda app: Idempotency(app, self.requests, authenticator, clock, limits)


@asynccontextmanager
async def running_credits(parts: CreditParts, *, work: bool = True) -> AsyncIterator[CreditKit]:
    """The services; the worker runs until the block ends, unless it shall not."""
    means = parts.means
    requests = SqlRequestStore(means.database)
    holds = HoldService(means, parts.is_tracked, parts.writer, parts.holds)
    credit = CreditService(means, parts.plain, parts.entitlements, parts.builtins)
    rates = RateService(means, parts.prices, parts.credits)
    transactions = TransactionService(holds, credit, rates, parts.credits, parts.bans)

    async def forget() -> int:
        return await requests.forget(means.clock())

    worker = HoldWorker(holds, forget)
    routers = [
        holds_api.router(HoldApi(holds)),
        credits_api.credits_router(credit, holds),
        credits_api.reservations_router(credit, holds, parts.credits, parts.bans),
        credits_api.transactions_router(transactions, holds),
        credits_api.rates_router(rates, holds),
    ]
    if work:
        worker.start()
    try:
        yield CreditKit(holds, credit, transactions, rates, worker, routers, requests, parts)
    finally:
        await worker.stop()
        await holds.close()


class CataloguePrices:
    """`Prices` of credits, over the service of prices."""

    def __init__(self, prices: PriceService) -> None:
        self._prices = prices

    async def cost_usd(
        self, namespace: str, model: str, tokens: Tokens, at: datetime
    ) -> Decimal | None:
        """See `Prices.cost_usd`."""
        usage = TokenUsage(
            input_tokens=Decimal(tokens.input),
            output_tokens=Decimal(tokens.output),
            cached_tokens=Decimal(tokens.cached) if tokens.cached else None,
        )
        try:
            return (await self._prices.quote(namespace, Asked(model, at), usage)).cost_usd
        except ValidationError:
            return None


class MemberBans:
    """`Bans` of credits, over what plans know of subjects."""

    def __init__(self, hot: HotReads, clock: Clock) -> None:
        self._hot = hot
        self._clock = clock

    async def refusal(self, namespace: str, subject: str) -> ForbiddenError | None:
        """See `Bans.refusal`."""
        looked = await members.look_up(self._hot, namespace, subject)
        if looked is None or not looked.is_banned:
            return None
        refusal = decide.banned(Ban(self._clock(), looked.ban_reason or ""))
        said = refusal_json(refusal) | {"subject": subject, "outcome": refusal.outcome.value}
        return ForbiddenError(refusal.detail, extensions=said)
