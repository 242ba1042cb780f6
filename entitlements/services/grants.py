"""Grants: issued, listed and voided."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from entitlements.balance import Allowance, Metering, check_void
from entitlements.model import IssuedGrant
from entitlements.paging import Page
from entitlements.services.entitlements import require_metered
from entitlements.services.means import Means, find_active, find_entitlement
from entitlements.specs import GrantSpec, make_grant
from entitlements.stores import entitlements as entitlement_store
from entitlements.stores import grants as store
from meterline.kernel.errors import NotFoundError, ValidationError
from meterline.kernel.ids import new_ulid

_MICROSECOND = timedelta(microseconds=1)


class GrantService:
    """The grants of metered entitlements."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self.limits = means.limits

    def now(self) -> datetime:
        """The instant that answers about grants are for."""
        return self._means.now()

    async def create(self, namespace: str, subject: str, ref: str, spec: GrantSpec) -> IssuedGrant:
        """Issue a grant. It may start in the past: then what came after is different now."""
        async with self._means.database.transaction() as conn:
            entitlement = require_metered(await find_active(conn, namespace, subject, ref))
            count, last = await store.last_created(conn, entitlement.id)
            if count >= self.limits.max_grants:
                most = self.limits.max_grants
                raise ValidationError(f"an entitlement has at most {most} grants")
            now = self._means.now()
            issued = make_grant(
                spec,
                entitlement,
                grant_id=new_ulid(now),
                created_at=_after(last, self._means.clock()),
                now=now,
                limits=self.limits,
            )
            await store.add(conn, issued)
            await self._means.live.invalidate(conn, entitlement.id)
        return issued

    async def of_entitlement(self, namespace: str, subject: str, ref: str) -> Sequence[IssuedGrant]:
        """Every grant of an entitlement, oldest first."""
        async with self._means.database.read() as conn:
            entitlement = await find_entitlement(conn, namespace, subject, ref, self._means.now())
            return (await store.of_entitlements(conn, [entitlement.id]))[entitlement.id]

    async def list(
        self,
        namespace: str,
        page: Page,
        *,
        subjects: Sequence[str] = (),
        features: Sequence[str] = (),
        include_ended: bool = False,
    ) -> tuple[Sequence[IssuedGrant], int]:
        """A page of the grants of all entitlements, and how many there are."""
        async with self._means.database.read() as conn:
            return await store.listing(
                conn,
                namespace,
                page,
                subjects=subjects,
                features=features,
                include_ended=include_ended,
            )

    async def void(self, namespace: str, grant_id: str, at: datetime | None) -> None:
        """End a grant. What it has paid stays paid."""
        async with self._means.database.transaction() as conn:
            found = await store.find(conn, namespace, grant_id)
            owner = None
            if found is not None:
                owner = await entitlement_store.by_id(
                    conn, namespace, found.entitlement_id, lock=True
                )
                # Once more, now that nobody else can change it.
                found = await store.find(conn, namespace, grant_id)
            if found is None or owner is None:
                raise NotFoundError("there is no such grant")
            if owner.ended_at is not None:
                raise ValidationError("the grant's entitlement was deleted or overridden")
            now = self._means.now()
            resets = (await store.resets_of(conn, [owner.id]))[owner.id]
            allowance = Allowance(owner.terms(Metering.ADDITIVE), resets=tuple(resets))
            check_void(allowance, found.grant, at or now, now)
            await store.void(conn, found.grant.id, at or now, now)
            await self._means.live.invalidate(conn, owner.id)


def _after(last: datetime | None, now: datetime) -> datetime:
    """A time of creation later than the last one: grants burn in the order of their creation."""
    return now if last is None else max(now, last + _MICROSECOND)
