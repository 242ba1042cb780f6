"""The part that decides what subjects may do: plans, checks, Stripe, and the client `parmot`."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa
from fastapi import APIRouter

from entitlements.balance.exact import total
from entitlements.builtin import BuiltIns
from entitlements.holds.model import Place
from entitlements.holds.service import HoldService
from entitlements.holds.tables import accounts, holds
from entitlements.plans import parmot
from entitlements.plans.api import routes
from entitlements.plans.api.check import CheckEndpoint
from entitlements.plans.api.openapi import check_operation
from entitlements.plans.checks import CheckService, Holds, Refused, Tracking
from entitlements.plans.limiter import RateLimiter
from entitlements.plans.members import MemberService
from entitlements.plans.options import PlanOptions, StripeOptions
from entitlements.plans.parmot import Recorder
from entitlements.plans.payments import api as payments_api
from entitlements.plans.payments.service import StripeService
from entitlements.plans.service import PlanService
from entitlements.plans.settling import Settled, Settling
from entitlements.plans.summary import SummaryService
from entitlements.plans.worker import PlanWorker
from entitlements.services.means import Means
from entitlements.services.values import ValueService
from entitlements.usage_records.model import RecordSpec, UsageContext
from entitlements.usage_records.ports import Recorded, UsageMeters
from entitlements.usage_records.service import UsageService
from meterline.db.hot import HotReads
from meterline.kernel.errors import ConflictError, NotFoundError, UsageLimitError
from meterline.kernel.instants import to_micros
from meterline.pricing.usage import TokenUsage
from meterline.server.app import HotRoute
from meterline.web.asgi import ASGIApp
from meterline.web.auth import Authenticator

_CHECK = "/api/v1/check"


@dataclass(frozen=True, slots=True)
class PlanParts:
    """What it is made of. `means` and `values` use live rows."""

    means: Means
    values: ValueService
    hot: HotReads
    tracking: Tracking
    built_ins: BuiltIns
    holds: Holds
    """`HeldBy` the service of holds."""
    recorder: Recorder
    """`ParmotRecords` over the service of records."""
    meters: UsageMeters
    options: PlanOptions
    stripe: StripeOptions


@dataclass(frozen=True, slots=True)
class PlanKit:
    """What decides. `erase` forgets a subject; it belongs to the purge of `SubjectService`."""

    plans: PlanService
    members: MemberService
    checks: CheckService
    payments: StripeService
    summaries: SummaryService
    worker: PlanWorker
    settling: Settling
    routers: Sequence[APIRouter]
    """They come before those of subjects, whose paths match some of theirs."""

    def hot_route(self, authenticator: Authenticator) -> HotRoute:
        """The check, which runs in front of the framework."""
        endpoint: ASGIApp = CheckEndpoint(self.checks, authenticator)
        return HotRoute("POST", _CHECK, endpoint, check_operation(self.checks.options))

    async def recorded(self, told: Recorded) -> None:
        """An `OnRecorded` for the service of records."""
        check_id = told.check_id
        await self.checks.recorded(told.namespace, told.subject, int(told.tokens), check_id)
        if check_id is not None:
            self.settling.recorded(Settled(told.namespace, told.subject, check_id))

    async def erase(self, namespace: str, subject: str) -> None:
        """Forget all that plans know of a subject."""
        await self.members.erase(namespace, subject)
        await self.payments.erase(namespace, subject)


@asynccontextmanager
async def running_plans(parts: PlanParts, *, work: bool = True) -> AsyncIterator[PlanKit]:
    """The services; the worker runs until the block ends, unless it shall not."""
    means, options = parts.means, parts.options
    limiter = RateLimiter(means.database, means.clock, options)
    members = MemberService(means, parts.values, parts.built_ins, limiter, options)
    checks = CheckService(
        parts.hot, means, parts.values, parts.tracking, limiter, parts.holds, options
    )
    payments = StripeService(means, members, parts.built_ins, parts.stripe)
    worker = PlanWorker(members, payments, options)
    plans = PlanService(means, parts.built_ins, options, worker.wake)
    summaries = SummaryService(means, parts.meters, parts.built_ins, options)

    async def wait() -> None:
        await means.usage.wait(options.wait_seconds)

    settling = Settling(parts.holds, wait)
    kit = PlanKit(
        plans,
        members,
        checks,
        payments,
        summaries,
        worker,
        settling,
        [
            routes.router(plans, members, summaries, means.limits),
            payments_api.router(payments),
            parmot.router(plans, members, checks, summaries, parts.recorder, wait),
        ],
    )
    settling.start()
    if work:
        worker.start()
    try:
        yield kit
    finally:
        await worker.stop()
        await settling.stop()
        await limiter.close()


class HeldBy:
    """`Holds` of checks, over the service of holds."""

    def __init__(self, holds: HoldService, means: Means) -> None:
        self._holds = holds
        self._means = means

    async def open(
        self,
        namespace: str,
        subject: str,
        feature_key: str,
        amount: Decimal,
        *,
        hold_id: str,
        ttl_seconds: int,
        allowance: Decimal | None,
    ) -> Refused | None:
        """See `Holds.open`."""
        try:
            await self._holds.open(
                namespace,
                subject,
                feature_key,
                amount,
                hold_id=hold_id,
                ttl_seconds=Decimal(ttl_seconds),
                allowance=allowance,
            )
        except UsageLimitError as error:
            said = error.extensions
            return Refused(Decimal(said["limit"]), Decimal(said["current"]))
        except NotFoundError:
            return Refused(Decimal(0), Decimal(0))
        return None

    async def release(self, namespace: str, subject: str, feature_key: str, hold_id: str) -> None:
        """See `Holds.release`."""
        place = Place(namespace, subject, feature_key)
        try:
            await self._holds.release(namespace, hold_id, place=place)
        except (ConflictError, NotFoundError):
            return

    async def held(self, namespace: str, subject: str, feature_key: str) -> Decimal:
        """See `Holds.held`."""
        at, account = holds.c, accounts.c
        place = (namespace, subject, feature_key)
        now = to_micros(self._means.clock())
        async with self._means.database.read() as conn:
            pending = await conn.execute(
                sa.select(account.pending).where(
                    *map(_equals, (account.namespace, account.subject, account.feature_key), place)
                )
            )
            still_open = await conn.execute(
                sa.select(at.amount).where(
                    *map(_equals, (at.namespace, at.subject, at.feature_key), place),
                    sa.text("state = 'open'"),
                    sa.or_(at.expires_at.is_(None), at.expires_at > now),
                )
            )
            return total([Decimal(one) for one in (*pending.scalars(), *still_open.scalars())])


def _equals(column: sa.ColumnElement[str], value: str) -> sa.ColumnElement[bool]:
    return column == value


class ParmotRecords:
    """`Recorder` of the client `parmot`, over the service of records."""

    def __init__(self, usage: UsageService) -> None:
        self._usage = usage

    async def record(
        self,
        namespace: str,
        subject: str,
        *,
        model: str,
        provider: str | None,
        usage: TokenUsage,
        metadata: dict[str, str],
    ) -> Decimal | None:
        """See `Recorder.record`."""
        spec = RecordSpec(
            model=model,
            usage=usage,
            context=UsageContext.CUSTOMER,
            subject=subject,
            provider=provider,
            metadata=metadata,
        )
        return (await self._usage.record(namespace, spec)).amount("costUsd")
