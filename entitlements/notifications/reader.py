"""What rules look at, read from the services of entitlements."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select

from entitlements.access import MeteredAccess, metered_access
from entitlements.api.encode import entitlement_json, feature_json
from entitlements.balance import anchor_at, period_at
from entitlements.balance.exact import ZERO
from entitlements.live import LiveValues
from entitlements.model import Entitlement, EntitlementType
from entitlements.notifications.model import EntitlementValue, ExpiringGrant, FeatureRef
from entitlements.services.entitlements import EntitlementState
from entitlements.services.means import to_millisecond
from entitlements.services.values import Loaded, Metered, ValueService
from entitlements.stores import features as feature_store
from entitlements.stores.entitlements import ACTIVE, entitlement_of, entitlements
from meterline.db.engine import Database
from meterline.kernel.clock import Clock
from meterline.kernel.errors import ConflictError, NotFoundError

_MILLISECOND = timedelta(milliseconds=1)
_NOW = timedelta(milliseconds=100)


class EntitlementReader:
    """The `ValueReader` over entitlements.

    A value of now goes through the live values: they are then kept, so that the sink tells of the
    entitlement's next usage.
    """

    def __init__(
        self, database: Database, values: ValueService, live: LiveValues, clock: Clock
    ) -> None:
        """`values` calculates without live values."""
        self._database = database
        self._values = values
        self._live = live
        self._clock = clock

    async def value(self, entitlement_id: str, at: datetime) -> EntitlementValue | None:
        """See `ValueReader.value`."""
        entitlement = await self._find(entitlement_id)
        # The end of the millisecond that has begun: usage counts before an instant.
        begun = to_millisecond(at)
        at = begun if begun == at else begun + _MILLISECOND
        if entitlement is None or entitlement.metered is None or at not in entitlement.lifetime:
            return None
        try:
            loaded = await self._values.load(
                entitlement.namespace, entitlement.subject, entitlement.id, at
            )
            metered = await self._values.metered(loaded)
        except (ConflictError, NotFoundError):
            # Its meter is gone, or it is itself.
            return None
        live = None
        if at > self._clock() - _NOW:
            live = await self._live.get(
                entitlement.namespace, entitlement.subject, entitlement.feature_key, at
            )
        if live is not None and live.metered is not None:
            return _value(loaded, metered, at, live.has_access, live.metered, is_told=True)
        (run,) = await self._values.runs([metered], at)
        access = metered_access(
            run.balance, entitlement.lifetime, is_soft_limit=entitlement.metered.is_soft_limit
        )
        if access.metered is None:
            return None
        return _value(loaded, metered, at, access.has_access, access.metered, is_told=False)

    async def metered(self, namespace: str, after: str, limit: int) -> Sequence[str]:
        """See `ValueReader.metered`."""
        query = (
            select(entitlements.c.id)
            .where(
                entitlements.c.namespace == namespace,
                entitlements.c.type == EntitlementType.METERED.value,
                entitlements.c.id > after,
                ACTIVE,
            )
            .order_by(entitlements.c.id)
            .limit(limit)
        )
        async with self._database.read() as conn:
            return (await conn.execute(query)).scalars().all()

    async def feature(self, namespace: str, id_or_key: str) -> FeatureRef | None:
        """See `ValueReader.feature`."""
        async with self._database.read() as conn:
            found = await feature_store.find(conn, namespace, id_or_key)
        return None if found is None else FeatureRef(found.id, found.key)

    async def _find(self, entitlement_id: str) -> Entitlement | None:
        query = select(entitlements).where(entitlements.c.id == entitlement_id)
        async with self._database.read() as conn:
            row = (await conn.execute(query)).first()
        return entitlement_of(row) if row else None


def _value(
    loaded: Loaded,
    metered: Metered,
    at: datetime,
    has_access: bool,
    figures: MeteredAccess,
    *,
    is_told: bool,
) -> EntitlementValue:
    entitlement, feature = loaded.entitlement, loaded.feature
    period = period_at(metered.allowance, at)
    state = EntitlementState(entitlement, anchor_at(metered.allowance, at), period)
    return EntitlementValue(
        namespace=entitlement.namespace,
        entitlement_id=entitlement.id,
        subject=entitlement.subject,
        feature=FeatureRef(feature.id, feature.key),
        at=at,
        has_access=has_access,
        balance=figures.balance,
        usage=figures.usage,
        overage=figures.overage,
        total_available_grant_amount=figures.total_available_grant_amount,
        period=period,
        grants=[
            ExpiringGrant(
                grant.id,
                figures.grant_balances.get(grant.id, ZERO if grant.active_at(at) else grant.amount),
                grant.effective_at,
                grant.expires_at,
            )
            for grant in metered.allowance.grants
            if grant.expires_at is not None and grant.voided_at is None and at < grant.expires_at
        ],
        documents={"entitlement": entitlement_json(state), "feature": feature_json(feature)},
        is_told=is_told,
    )
