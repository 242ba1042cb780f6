"""What every service of entitlements works with, and how it finds an entitlement."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.limits import EntitlementLimits
from entitlements.live import LiveValues, NoLiveValues
from entitlements.model import Entitlement
from entitlements.stores import entitlements as store
from entitlements.usage import UsageReader
from meterline.db.engine import Database
from meterline.kernel.clock import Clock
from meterline.kernel.errors import NotFoundError

_MILLISECOND = timedelta(milliseconds=1)
_LOOKS = 5
_JS_OBJECT = "[object Object]"


@dataclass(frozen=True, slots=True)
class Means:
    """The dependencies of the services."""

    database: Database
    usage: UsageReader
    clock: Clock
    limits: EntitlementLimits = field(default_factory=EntitlementLimits)
    live: LiveValues = field(default_factory=NoLiveValues)

    def now(self) -> datetime:
        """The millisecond that has begun: when a change that is made now takes effect."""
        return to_millisecond(self.clock())

    def reading_time(self) -> datetime:
        """The end of the millisecond that has begun, so that an answer of now has all before."""
        now = self.clock()
        begun = to_millisecond(now)
        return begun if begun == now else begun + _MILLISECOND


def to_millisecond(t: datetime) -> datetime:
    """The millisecond that holds `t`: instants of balances are exact to it."""
    return t.replace(microsecond=t.microsecond // 1000 * 1000)


async def find_entitlement(
    conn: AsyncConnection, namespace: str, subject: str, ref: str, at: datetime
) -> Entitlement:
    """The entitlement that an id, a feature id or a feature key names.

    Of several for one feature it is the one in force at `at`, else the newest.
    """
    found = await store.find(conn, namespace, subject, ref)
    if not found:
        raise _missing(ref)
    return _best(found, ref, at)


async def find_active(conn: AsyncConnection, namespace: str, subject: str, ref: str) -> Entitlement:
    """The same, for a change: no other transaction changes it meanwhile, and it has not ended."""
    for _ in range(_LOOKS):
        # Who waited for an override is left without a row: the new one came after its look.
        for one in await store.find(conn, namespace, subject, ref, to_change=True):
            if one.ended_at is None:
                return one
    if await store.find(conn, namespace, subject, ref):
        raise NotFoundError("the entitlement was deleted or overridden")
    raise _missing(ref)


def _best(found: Sequence[Entitlement], ref: str, at: datetime) -> Entitlement:
    for one in found:
        if one.id == ref.upper():
            return one
    # A back-dated one also answers for a time at which another one was in force.
    in_force = [one for one in found if at in one.lifetime]
    return next((one for one in in_force if one.created_at <= at), (in_force or found)[0])


def _missing(ref: str) -> NotFoundError:
    if ref == _JS_OBJECT:
        return NotFoundError(
            "the address names the entitlement [object Object]: a JavaScript object was given "
            "where the entitlement's id or feature key belongs. Call "
            "resetEntitlementUsage(subject, featureKey, options): it takes three arguments"
        )
    return NotFoundError(
        "the subject has no such entitlement: give an entitlement's id, a feature's id or its key"
    )
