"""Entitlements and grants as a subject's plan wants them, in the caller's transaction.

Doing it again changes nothing; doing it in one transaction with the row of the subject locked makes
it exact however many processes do. What a plan has made carries the plan's key in its metadata, and
ends with it; what somebody made by hand for the same feature is left alone.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance import Allowance, Metering, anchor_at, issued_after_reset, period_at
from entitlements.builtin import COST, CREDITS, TOKENS
from entitlements.model import Entitlement, EntitlementType, IssuedGrant
from entitlements.plans.model import CreditAllocation, Member, Plan, PlanFeature
from entitlements.plans.refills import MONTH, REFILL, Refill, plan_refills
from entitlements.services.means import Means
from entitlements.specs import (
    EntitlementSpec,
    GrantSpec,
    MeasureFrom,
    RecurrenceSpec,
    make_entitlement,
    make_grant,
)
from entitlements.stores import entitlements as entitlement_store
from entitlements.stores import features as feature_store
from entitlements.stores import grants as grant_store
from meterline.kernel.errors import NotFoundError
from meterline.kernel.ids import new_ulid
from meterline.kernel.periods import Recurrence, format_interval
from meterline.kernel.quantity import format_number

PLAN = "meterlinePlan"
"""Name in an entitlement's metadata: the key of the plan that made it."""
SPEC = "meterlinePlanSpec"
"""Name in its metadata: tells what the plan wanted apart."""
MONDAY = datetime(2001, 1, 1, tzinfo=UTC)
"""A Monday and the first of a month: from it, periods are those of the calendar."""


def usage_spec(plan: str, feature: str) -> EntitlementSpec:
    """An entitlement that only counts: a month's usage, without any limit of its own."""
    return EntitlementSpec(
        EntitlementType.METERED,
        feature,
        usage_period=RecurrenceSpec(MONTH, MONDAY),
        measure_from=MeasureFrom.CURRENT_PERIOD_START,
        is_soft_limit=True,
        metadata={PLAN: plan, SPEC: "usage"},
    )


def credits_spec() -> EntitlementSpec:
    """The entitlement that holds a subject's credits. It stays when a plan goes."""
    return EntitlementSpec(
        EntitlementType.METERED,
        CREDITS,
        usage_period=RecurrenceSpec(MONTH),
        preserve_overage_at_reset=True,
    )


def feature_spec(plan: str, one: PlanFeature) -> EntitlementSpec:
    """The entitlement for a feature of a plan."""
    parts = [
        one.type.value,
        one.config or "",
        format_interval(one.interval) if one.interval else "",
        "" if one.amount is None else format_number(one.amount),
        str(one.is_soft_limit),
    ]
    name = hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:16]
    spec = EntitlementSpec(one.type, one.key, config=one.config, metadata={PLAN: plan, SPEC: name})
    if one.type is not EntitlementType.METERED or one.interval is None:
        return spec
    return replace(
        spec,
        usage_period=RecurrenceSpec(one.interval, MONDAY),
        measure_from=MeasureFrom.CURRENT_PERIOD_START,
        is_soft_limit=one.is_soft_limit,
        issue_after_reset=one.amount,
    )


def wanted(plan: Plan | None) -> Mapping[str, EntitlementSpec]:
    """What a plan entitles to, by feature. Credits are apart."""
    if plan is None:
        return {}
    own = {one: usage_spec(plan.key, one) for one in (TOKENS, COST)}
    return own | {one.key: feature_spec(plan.key, one) for one in plan.spec.features}


class Aligner:
    """Brings one subject's entitlements in line with its plan."""

    def __init__(self, means: Means) -> None:
        self._means = means

    async def align(
        self,
        conn: AsyncConnection,
        member: Member,
        now: datetime,
        used: Decimal | None,
    ) -> datetime | None:
        """Do it; answers when the next refill has to be issued.

        `used` of refills: see `plan_refills`.
        """
        found = await entitlement_store.of_subject(conn, member.namespace, member.subject)
        active = {one.feature_key: one for one in found}
        specs = wanted(member.plan)
        for key, one in active.items():
            if PLAN in one.metadata and not _is_kept(one, specs.get(key)):
                await self._end(conn, one, now)
        for key, spec in specs.items():
            kept = active.get(key)
            if kept is not None and (PLAN not in kept.metadata or _is_kept(kept, spec)):
                continue
            # A feature may have been archived since the plan was made.
            if await feature_store.find(conn, member.namespace, key) is not None:
                await self._make(conn, member, spec, now)
        allocation = member.plan.spec.credits if member.plan else None
        return await self._align_credits(conn, member, allocation, now, used)

    async def end_all(
        self, conn: AsyncConnection, namespace: str, subject: str, now: datetime
    ) -> None:
        """End all entitlements of a subject, also those that were made by hand, and its credits."""
        for one in await entitlement_store.of_subject(conn, namespace, subject):
            await self._end(conn, one, now)

    async def grant_credits(
        self,
        conn: AsyncConnection,
        member: Member,
        amount: Decimal,
        metadata: Mapping[str, str],
        now: datetime,
    ) -> None:
        """Give credits that stay until they are used."""
        entitlement = await self._credits(conn, member, now)
        spec = GrantSpec(amount, now, priority=10, max_rollover=amount, metadata=metadata)
        await self._grant(conn, entitlement, spec, now)

    async def _align_credits(
        self,
        conn: AsyncConnection,
        member: Member,
        allocation: CreditAllocation | None,
        now: datetime,
        used: Decimal | None,
    ) -> datetime | None:
        entitlement = await entitlement_store.active(
            conn, member.namespace, member.subject, CREDITS
        )
        if entitlement is None:
            if allocation is None:
                return None
            entitlement = await self._credits(conn, member, now)
        if entitlement.metered is None or entitlement.usage_period is None:
            return None
        issued = (await grant_store.of_entitlements(conn, [entitlement.id])).get(entitlement.id, [])
        resets = (await grant_store.resets_of(conn, [entitlement.id])).get(entitlement.id, [])
        terms = entitlement.terms(Metering.ADDITIVE)
        allowance = Allowance(terms, resets=tuple(resets))
        period, months = period_at(allowance, now), Recurrence(anchor_at(allowance, now), MONTH)
        change = plan_refills(allocation, issued, period, months, now, used)
        for grant_id in change.void:
            await grant_store.void(conn, grant_id, now, now)
        for refill in change.make:
            priority = allocation.priority if allocation else 1
            await self._grant(conn, entitlement, _grant_spec(refill, priority), now)
        if change.void:
            await self._means.live.invalidate(conn, entitlement.id)
        return change.due_at

    async def _credits(self, conn: AsyncConnection, member: Member, now: datetime) -> Entitlement:
        known = await entitlement_store.active(conn, member.namespace, member.subject, CREDITS)
        return known or await self._make(conn, member, credits_spec(), now)

    async def _make(
        self, conn: AsyncConnection, member: Member, spec: EntitlementSpec, now: datetime
    ) -> Entitlement:
        feature = await feature_store.find(conn, member.namespace, spec.feature)
        if feature is None:
            raise NotFoundError(f"there is no feature {spec.feature}")
        made = make_entitlement(
            spec,
            feature,
            member.subject,
            entitlement_id=new_ulid(now),
            now=now,
            limits=self._means.limits,
        )
        await entitlement_store.add(conn, made)
        if made.metered is not None and made.metered.issue_after_reset is not None:
            grant = issued_after_reset(
                made.terms(Metering.ADDITIVE),
                made.metered.issue_after_reset,
                grant_id=new_ulid(now),
                created_at=now,
                priority=made.metered.issue_after_reset_priority,
            )
            issued = IssuedGrant(grant, made.namespace, made.id, None, True, {}, now)
            await grant_store.add(conn, issued)
        await self._means.live.invalidate(conn, made.id)
        return made

    async def _grant(
        self, conn: AsyncConnection, entitlement: Entitlement, spec: GrantSpec, now: datetime
    ) -> None:
        issued = make_grant(
            spec,
            entitlement,
            grant_id=new_ulid(now),
            created_at=now,
            now=now,
            limits=self._means.limits,
        )
        await grant_store.add(conn, issued)
        await self._means.live.invalidate(conn, entitlement.id)

    async def _end(self, conn: AsyncConnection, one: Entitlement, now: datetime) -> None:
        await entitlement_store.end(conn, one, now)
        await self._means.live.invalidate(conn, one.id)


def _is_kept(one: Entitlement, spec: EntitlementSpec | None) -> bool:
    return spec is not None and one.metadata.get(SPEC) == spec.metadata[SPEC]


def _grant_spec(refill: Refill, priority: int) -> GrantSpec:
    recurrence = refill.recurrence
    return GrantSpec(
        refill.amount,
        refill.effective_at,
        priority=priority,
        expires_at=refill.expires_at,
        max_rollover=refill.max_rollover,
        recurrence=None
        if recurrence is None
        else RecurrenceSpec(recurrence.interval, recurrence.anchor),
        metadata={REFILL: refill.ref},
    )
