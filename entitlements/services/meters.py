"""Which meters features need, so that nobody takes them away."""

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance import metering_of
from entitlements.stores import entitlements as entitlement_store
from entitlements.stores import features as feature_store
from entitlements.stores import live
from meterline.db.engine import Database
from meterline.kernel.errors import ValidationError
from meterline.kernel.meters import Meter


class MeterUse:
    """Says why a meter has to stay as it is.

    A feature needs its meter until it is archived and has no entitlement left.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self, before: Meter, after: Meter | None) -> str | None:
        """Why a meter may not be deleted (`after` is None), or not become `after`; else None."""
        async with self._database.read() as conn:
            found = await feature_store.using_meter(conn, before.namespace, before.slug)
            archived = [one.id for one in found if one.archived_at is not None]
            entitled = await entitlement_store.any_active(conn, archived)
        users = [one for one in found if one.archived_at is None or one.id in entitled]
        if after is None:
            return f"the feature {users[0].key} uses it" if users else None
        for feature in users:
            for key in feature.filters:
                if key not in after.group_by:
                    return f"the feature {feature.key} filters by its groupBy key {key}"
            try:
                metering_of(after.aggregation)
            except ValidationError as error:
                return f"the feature {feature.key} uses it, and {error.detail}"
        return None

    async def on_change(self, conn: AsyncConnection, meter: Meter) -> None:
        """A meter changes in this transaction: what is kept of balances over it does not hold."""
        for entitlement_id in await entitlements_over(conn, meter):
            await live.invalidate(conn, entitlement_id)


async def entitlements_over(conn: AsyncConnection, meter: Meter) -> list[str]:
    """The ids of entitlements over a meter that have not ended, in order.

    The order is the same for all who lock their rows, so that none waits for another in a circle.
    """
    ids: set[str] = set()
    for feature in await feature_store.using_meter(conn, meter.namespace, meter.slug):
        ids.update(await entitlement_store.active_of_feature(conn, feature.id))
    return sorted(ids)
