"""Proof that live usage is the event store's, and its making anew."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from entitlements.balance.exact import ZERO, total
from entitlements.services.live import LiveEntitlements, TrackedUsage
from entitlements.services.values import ValueService
from entitlements.stores import live
from entitlements.stores.live import Followed
from meterline.db.engine import Database
from meterline.kernel.clock import Clock
from meterline.kernel.instants import LATEST
from meterline.kernel.periods import Period

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Compared:
    """One entitlement's usage since its last change: what its live row says, and the store."""

    subject: str
    feature_key: str
    since: datetime
    kept: Decimal
    stored: Decimal

    @property
    def agrees(self) -> bool:
        """Whether they are the same number."""
        return self.kept == self.stored


class LiveUsage:
    """All live rows together. The sink should stand still, or a row may move while it is read."""

    def __init__(
        self,
        database: Database,
        live_entitlements: LiveEntitlements,
        values: ValueService,
        usage: TrackedUsage,
        clock: Clock,
    ) -> None:
        """`values` must not use live entitlements itself."""
        self._database = database
        self._live = live_entitlements
        self._values = values
        self._usage = usage
        self._clock = clock

    async def compare(self) -> AsyncIterator[Compared]:
        """Every row that follows usage, with what the event store says."""
        async for one in self._followed():
            yield await self._compared(one)

    async def rebuild(self, tell: Callable[[int], None]) -> None:
        """Throw every row away and calculate it anew; `tell` hears how many are done."""
        done = 0
        async for one in self._followed():
            async with self._database.transaction() as conn:
                await live.invalidate(conn, one.row.entitlement_id)
            key = one.row.state.feature_key
            await self._live.get(one.namespace, one.subject, key, self._clock())
            done += 1
            tell(done)

    async def _followed(self) -> AsyncIterator[Followed]:
        after = ""
        while True:
            async with self._database.read() as conn:
                page = await live.followed(conn, after, _PAGE)
            for one in page:
                yield one
            if len(page) < _PAGE:
                return
            after = page[-1].row.entitlement_id

    async def _compared(self, one: Followed) -> Compared:
        standing = one.row.state.standing
        assert standing is not None, "a row that follows usage has a standing"
        since, key = standing.opening.at, one.row.state.feature_key
        metered = await self._values.metered(
            await self._values.load(one.namespace, one.subject, one.row.entitlement_id, since)
        )
        async with self._database.read() as conn:
            positions = await self._usage.positions(conn)
        span = Period(since, LATEST)
        (stored,) = await self._usage.read_through(metered.query, [span], positions)
        kept = total([one.row.usage, *(amount for _, amount in one.row.due)])
        return Compared(one.subject, key, since, kept, stored or ZERO)
