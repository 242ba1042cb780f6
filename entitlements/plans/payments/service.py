"""Payments at Stripe move subjects between plans."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance.exact import ZERO
from entitlements.builtin import BuiltIns
from entitlements.plans.members import Assignment, MemberService
from entitlements.plans.options import StripeOptions
from entitlements.plans.payments import notes
from entitlements.plans.payments.judge import (
    Step,
    Subscription,
    judge,
    note_of,
    subscription_id,
)
from entitlements.plans.payments.notice import Kind, Notice, read_notice
from entitlements.plans.stores import payments as store
from entitlements.plans.stores import plans as plan_store
from entitlements.plans.stores.payments import Received
from entitlements.plans.stripe import check_signature
from entitlements.services.means import Means
from meterline.db import mutex
from meterline.kernel.errors import MeterlineError, NotFoundError, ValidationError

log = structlog.get_logger(__name__)

APPLIED = "applied"
SCHEDULED = "scheduled"
IGNORED = "ignored"
STALE = "stale"
DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of an event."""

    id: str
    outcome: str
    reason: str | None = None
    plan: str | None = None
    """Key of the plan that the subject has since."""


@dataclass(frozen=True, slots=True)
class _Resolved:
    """The plan that a notice is about, looked up before its transaction."""

    plan: str | None
    credits: Decimal | None
    used: Decimal = ZERO
    """What was used of the refills that the plan replaces."""


class StripeService:
    """Takes Stripe's events, each once."""

    def __init__(
        self,
        means: Means,
        members: MemberService,
        built_ins: BuiltIns,
        options: StripeOptions,
    ) -> None:
        self._means = means
        self._members = members
        self._built_ins = built_ins
        self.options = options

    async def receive(self, payload: bytes, signature: str | None) -> Handled:
        """Take an event as it was sent. `ValidationError` when its signature is not good."""
        if not self.options.webhook_secrets:
            raise NotFoundError("the webhook of Stripe is off: set stripe.webhook_secrets")
        if signature is None:
            raise ValidationError("Stripe-Signature: is required")
        check_signature(
            payload, signature, self.options.webhook_secrets, self.options.tolerance_seconds
        )
        try:
            event = json.loads(payload)
        except (ValueError, RecursionError):
            raise ValidationError("the body is not valid JSON") from None
        return await self.handle(read_notice(event))

    async def handle(self, notice: Notice) -> Handled:
        """Do what a notice asks for, unless it was done before."""
        namespace = self.options.namespace
        reason = self._useless(notice)
        resolved = _Resolved(None, None)
        if reason is None:
            await self._built_ins.ensure(namespace)
            resolved = await self._resolve(notice)
            if notice.kind is Kind.PAID and resolved.plan is None and not resolved.credits:
                reason = self._no_plan(notice)
        async with self._means.database.transaction() as conn:
            now = self._means.now()
            received = Received(
                notice.id, notice.type, notice.created_at, now, notice.subject,
                notice.subscription, IGNORED, reason, None,
            )  # fmt: skip
            if not await store.add_event(conn, namespace, received):
                return Handled(notice.id, DUPLICATE, "the event was here before")
            if reason is not None:
                return Handled(notice.id, IGNORED, reason)
            done = await self._apply(conn, notice, resolved, now)
            await store.tell(conn, namespace, notice.id, done.outcome, done.reason, done.plan)
        return done

    async def events(
        self, *, outcome: str | None, subject: str | None, offset: int, limit: int
    ) -> Sequence[Received]:
        """What was received, newest first."""
        async with self._means.database.read() as conn:
            return await store.events(
                conn,
                self.options.namespace,
                outcome=outcome,
                subject=subject,
                offset=offset,
                limit=limit,
            )

    async def end_graces(self, limit: int) -> int:
        """Have subjects fall back whose grace is over; answers how many."""
        async with self._means.database.read() as conn:
            found = await store.graces(conn, self._means.now(), limit)
        for namespace, one, subject in found:
            used = await self._members.used(namespace, subject)
            async with self._means.database.transaction() as conn:
                await mutex.alone(conn, "stripe", namespace, one)
                now = self._means.now()
                known = await store.lock_subscription(conn, namespace, one)
                if known is None or known.grace_until is None or known.grace_until > now:
                    continue
                after = replace(known, grace_until=None)
                await store.save_subscription(conn, namespace, after)
                done = await self._fall_back(conn, after, f"grace:{one}", used)
                log.info("the grace of a failed payment is over", subscription=one,
                         plan=done.plan, reason=done.reason)  # fmt: skip
        return len(found)

    async def erase(self, namespace: str, subject: str) -> None:
        """Forget what is noted of a subject's subscriptions."""
        async with self._means.database.transaction() as conn:
            await notes.erase(conn, namespace, subject)

    async def forget(self) -> int:
        """Forget some events that are too old to come again."""
        before = self._means.now() - timedelta(days=self.options.keep_days)
        async with self._means.database.transaction() as conn:
            return await store.forget_events(conn, before)

    def _useless(self, notice: Notice) -> str | None:
        if notice.kind is None:
            return f"events of the type {notice.type} are not used"
        if notice.subject is None:
            return "no end_user_id in the subscription's metadata"
        try:
            self._members.check_subject(notice.subject)
        except MeterlineError as error:
            return error.detail
        return None

    def _no_plan(self, notice: Notice) -> str:
        if notice.plan is not None:
            return f"there is no plan {notice.plan}"
        if notice.prices:
            return f"no plan has the price {notice.prices[0]}"
        return "the invoice names no price"

    async def _resolve(self, notice: Notice) -> _Resolved:
        namespace = self.options.namespace
        async with self._means.database.read() as conn:
            by_price = await plan_store.by_prices(conn, namespace, notice.prices)
            plan = next((by_price[one] for one in notice.prices if one in by_price), None)
            if plan is None and notice.plan is not None:
                plan = await plan_store.find(conn, namespace, notice.plan)
        credits = notice.credits
        if credits is None and plan is not None:
            credits = plan.spec.credits_per_payment
        assert notice.subject is not None
        used = await self._members.used(namespace, notice.subject)
        return _Resolved(plan.key if plan else None, credits, used)

    async def _apply(
        self, conn: AsyncConnection, notice: Notice, resolved: _Resolved, now: datetime
    ) -> Handled:
        assert notice.subject is not None
        namespace = self.options.namespace
        one = subscription_id(notice)
        # Its first events have no row to wait for, and each must see the notes of the others.
        await mutex.alone(conn, "stripe", namespace, one)
        granted = await self._grant(conn, notice, resolved, now)
        if notice.kind is Kind.PAID and resolved.plan is None:
            reason = None if granted else "the payment's credits were granted before"
            return Handled(notice.id, APPLIED if granted else IGNORED, reason)
        known = await store.lock_subscription(conn, namespace, one)
        noted = await notes.of_subscription(conn, namespace, one)
        grace = timedelta(seconds=self.options.grace_seconds)
        verdict = judge(known, noted, notice, resolved.plan, grace, now)
        await notes.add(conn, namespace, one, notice.subject, note_of(notice, resolved.plan))
        await store.save_subscription(conn, namespace, verdict.after)
        match verdict.step:
            case Step.PAY:
                plan = verdict.after.plan
                assert plan is not None
                await self._assign(conn, notice.subject, plan, notice.id, resolved.used)
                return Handled(notice.id, APPLIED, plan=plan)
            case Step.FALL_BACK:
                return await self._fall_back(conn, verdict.after, notice.id, resolved.used)
            case Step.WAIT:
                return Handled(notice.id, SCHEDULED, "the subject falls back after the grace")
            case Step.NOTHING:
                outcome = APPLIED if granted else STALE
                return Handled(notice.id, outcome, verdict.reason)

    async def _grant(
        self, conn: AsyncConnection, notice: Notice, resolved: _Resolved, now: datetime
    ) -> bool:
        """Grant a payment's credits, once however many events tell of it."""
        if notice.kind is not Kind.PAID or not notice.is_charged or not resolved.credits:
            return False
        assert notice.subject is not None
        namespace, invoice = self.options.namespace, notice.invoice or notice.id
        if not await store.add_invoice(
            conn, namespace, invoice, notice.subject, resolved.credits, now
        ):
            return False
        metadata = {"stripeInvoice": invoice, "stripeEvent": notice.id}
        await self._members.grant_credits(
            conn, namespace, notice.subject, resolved.credits, metadata
        )
        return True

    async def _fall_back(
        self, conn: AsyncConnection, after: Subscription, ref: str, used: Decimal
    ) -> Handled:
        """To what the subject still pays for, else to the free plan."""
        namespace = self.options.namespace
        others = await store.others(conn, namespace, after.subject, after.id)
        wanted = [one.plan for one in others] + [after.fallback, self.options.free_plan]
        for key in wanted:
            if key is not None and await plan_store.find(conn, namespace, key) is not None:
                await self._assign(conn, after.subject, key, ref, used)
                return Handled(ref, APPLIED, plan=key)
        free = after.fallback or self.options.free_plan
        return Handled(ref, IGNORED, f"there is no plan {free} to fall back to")

    async def _assign(
        self, conn: AsyncConnection, subject: str, plan: str, ref: str, used: Decimal
    ) -> None:
        wanted = Assignment(plan, source="stripe", data={"event": ref})
        await self._members.assign_within(conn, self.options.namespace, subject, wanted, used)
