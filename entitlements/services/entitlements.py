"""Entitlements: made, listed, overridden, reset and ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance import (
    Allowance,
    Metering,
    Reset,
    anchor_at,
    check_reset,
    issued_after_reset,
    period_at,
)
from entitlements.model import Entitlement, EntitlementType, Feature, IssuedGrant
from entitlements.paging import Page
from entitlements.services.features import require_feature
from entitlements.services.means import Means, find_active, find_entitlement
from entitlements.specs import EntitlementSpec, ResetSpec, fault, make_entitlement
from entitlements.stores import entitlements as store
from entitlements.stores import grants as grant_store
from meterline.db import mutex
from meterline.kernel.errors import ConflictError, NotFoundError, ValidationError
from meterline.kernel.ids import new_ulid
from meterline.kernel.periods import Period
from meterline.kernel.text import is_text


@dataclass(frozen=True, slots=True)
class EntitlementState:
    """An entitlement, and where it is in its usage periods."""

    entitlement: Entitlement
    anchor: datetime | None
    """Of the current usage period."""
    period: Period | None
    """The current usage period; of an ended entitlement, the last one."""


class EntitlementService:
    """The entitlements of subjects."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self.limits = means.limits

    async def create(self, namespace: str, subject: str, spec: EntitlementSpec) -> EntitlementState:
        """Entitle a subject; `ConflictError` while it has an entitlement for that feature."""
        self._check_subject(subject)
        try:
            async with self._means.database.transaction() as conn:
                feature = await _feature_of(conn, namespace, spec)
                await _refuse_second(conn, namespace, subject, feature.key)
                return await self._make(conn, spec, feature, subject)
        except IntegrityError:
            async with self._means.database.read() as conn:
                feature = await _feature_of(conn, namespace, spec)
                await _refuse_second(conn, namespace, subject, feature.key)
            raise

    async def override(
        self, namespace: str, subject: str, ref: str, spec: EntitlementSpec
    ) -> EntitlementState:
        """End an entitlement and start another one for the same feature, at the same instant."""
        async with self._means.database.transaction() as conn:
            old = await find_active(conn, namespace, subject, ref)
            feature = await _feature_of(conn, namespace, spec)
            if feature.key != old.feature_key:
                raise fault("featureKey", f"the entitlement is for the feature {old.feature_key}")
            await self._end(conn, old)
            return await self._make(conn, spec, feature, subject)

    async def delete(self, namespace: str, subject: str, ref: str) -> None:
        """End an entitlement. What it was stays readable."""
        async with self._means.database.transaction() as conn:
            await self._end(conn, await find_active(conn, namespace, subject, ref))

    async def get(self, namespace: str, subject: str, ref: str) -> EntitlementState:
        """An entitlement by its id, ended or not, or the one for a feature."""
        async with self._means.database.read() as conn:
            now = self._means.now()
            one = await find_entitlement(conn, namespace, subject, ref, now)
            if one.ended_at is not None and one.id != ref.upper():
                raise NotFoundError("the entitlement was deleted; get it by its id")
            return (await self._states(conn, [one]))[0]

    async def get_by_id(self, namespace: str, entitlement_id: str) -> EntitlementState:
        """An entitlement of any subject by its id."""
        async with self._means.database.read() as conn:
            one = await store.by_id(conn, namespace, entitlement_id)
            if one is None:
                raise NotFoundError("there is no such entitlement")
            return (await self._states(conn, [one]))[0]

    async def of_subject(
        self, namespace: str, subject: str, *, include_ended: bool = False
    ) -> Sequence[EntitlementState]:
        """Every entitlement of a subject, oldest first."""
        async with self._means.database.read() as conn:
            found = await store.of_subject(conn, namespace, subject, include_ended=include_ended)
            return await self._states(conn, found)

    async def list(
        self,
        namespace: str,
        page: Page,
        *,
        subjects: Sequence[str] = (),
        features: Sequence[str] = (),
        types: Sequence[EntitlementType] = (),
        include_ended: bool = False,
    ) -> tuple[Sequence[EntitlementState], int]:
        """A page of entitlements of all subjects, and how many there are."""
        async with self._means.database.read() as conn:
            found, total = await store.listing(
                conn,
                namespace,
                page,
                subjects=subjects,
                features=features,
                types=types,
                include_ended=include_ended,
            )
            return await self._states(conn, found), total

    async def reset(self, namespace: str, subject: str, ref: str, spec: ResetSpec) -> None:
        """Start a new usage period by hand."""
        async with self._means.database.transaction() as conn:
            entitlement = require_metered(await find_active(conn, namespace, subject, ref))
            now = self._means.now()
            at = spec.effective_at or now
            known = (await grant_store.resets_of(conn, [entitlement.id]))[entitlement.id]
            check_reset(_periods(entitlement, known), at, now)
            if len(known) >= self.limits.max_resets:
                most = self.limits.max_resets
                raise ValidationError(f"an entitlement has at most {most} resets by hand")
            reset = Reset(at, spec.retain_anchor, spec.preserve_overage)
            await grant_store.add_reset(conn, entitlement.id, reset, now)
            await self._means.live.invalidate(conn, entitlement.id)

    async def _make(
        self, conn: AsyncConnection, spec: EntitlementSpec, feature: Feature, subject: str
    ) -> EntitlementState:
        most = self.limits.max_entitlements
        await mutex.alone(conn, "entitlements", feature.namespace, subject)
        if await store.count_active(conn, feature.namespace, subject) >= most:
            raise ValidationError(f"a subject has at most {most} entitlements")
        now = self._means.now()
        entitlement = make_entitlement(
            spec, feature, subject, entitlement_id=new_ulid(now), now=now, limits=self.limits
        )
        await store.add(conn, entitlement)
        rules = entitlement.metered
        if rules is not None and rules.issue_after_reset is not None:
            grant = issued_after_reset(
                entitlement.terms(Metering.ADDITIVE),
                rules.issue_after_reset,
                grant_id=new_ulid(now),
                created_at=now,
                priority=rules.issue_after_reset_priority,
            )
            issued = IssuedGrant(grant, feature.namespace, entitlement.id, None, True, {}, now)
            await grant_store.add(conn, issued)
        await self._means.live.invalidate(conn, entitlement.id)
        return _state(entitlement, (), now)

    async def _end(self, conn: AsyncConnection, entitlement: Entitlement) -> None:
        if not await store.end(conn, entitlement, self._means.now()):
            raise NotFoundError("the entitlement was deleted or overridden")
        await self._means.live.invalidate(conn, entitlement.id)

    async def _states(
        self, conn: AsyncConnection, found: Sequence[Entitlement]
    ) -> Sequence[EntitlementState]:
        now = self._means.now()
        resets = await grant_store.resets_of(conn, [one.id for one in found])
        return [_state(one, resets[one.id], now) for one in found]

    def _check_subject(self, subject: str) -> None:
        most = self.limits.max_subject_length
        if not 1 <= len(subject) <= most or not is_text(subject):
            raise fault("subject", f"must have 1 to {most} characters, and no control characters")


def require_metered(entitlement: Entitlement) -> Entitlement:
    """The entitlement, or `ValidationError` when it has no balance."""
    if entitlement.metered is None:
        raise ValidationError(
            f"a {entitlement.type} entitlement has no grants, no usage and no resets"
        )
    return entitlement


def _state(entitlement: Entitlement, resets: Sequence[Reset], now: datetime) -> EntitlementState:
    if entitlement.usage_period is None:
        return EntitlementState(entitlement, None, None)
    at = now if entitlement.ended_at is None else min(now, entitlement.ended_at)
    if entitlement.metered is None:
        period = entitlement.usage_period
        return EntitlementState(entitlement, period.anchor, period.period(at))
    periods = _periods(entitlement, resets)
    return EntitlementState(entitlement, anchor_at(periods, at), period_at(periods, at))


def _periods(entitlement: Entitlement, resets: Sequence[Reset]) -> Allowance:
    """What usage periods depend on; how usage is measured is no part of it."""
    return Allowance(entitlement.terms(Metering.ADDITIVE), resets=tuple(resets))


async def _feature_of(conn: AsyncConnection, namespace: str, spec: EntitlementSpec) -> Feature:
    feature = await require_feature(conn, namespace, spec.feature)
    if spec.feature_key not in (None, feature.key):
        raise fault("featureId", f"is the id of the feature {feature.key}, not {spec.feature_key}")
    if feature.archived_at is not None:
        raise ConflictError(f"the feature {feature.key} is archived")
    return feature


async def _refuse_second(
    conn: AsyncConnection, namespace: str, subject: str, feature_key: str
) -> None:
    other = await store.active(conn, namespace, subject, feature_key)
    if other is not None:
        raise ConflictError(
            f"the subject has an entitlement for the feature {feature_key} already: {other.id}",
            extensions={"conflictingEntityId": other.id},
        )
