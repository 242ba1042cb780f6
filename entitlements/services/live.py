"""Live entitlements: the fast answer to "may this subject use this feature now?".

A look-up finds the state since the last change and the usage that the sink has added up since.
When there is none, or time has passed its next change, a row is built: see
`entitlements.stores.building`, which says why no usage is lost or counted twice meanwhile.
Whoever asks while a row is being built waits for it: in one process all share one building.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.access import Access
from entitlements.balance import Plan, burn, plan
from entitlements.balance.exact import ZERO
from entitlements.balance.metering import Metering
from entitlements.balance.standing import Standing, next_change
from entitlements.services.patience import PATIENCE_SECONDS, pauses
from entitlements.services.values import Loaded, Metered, ValueService
from entitlements.stores import building, live
from entitlements.stores.live import Due, Kept, LiveRow, LiveState, Tracking
from entitlements.usage import UsageQuery
from meterline.db.engine import Database
from meterline.db.hot import HotReads
from meterline.kernel.errors import MeterlineError
from meterline.kernel.instants import LATEST, to_micros
from meterline.kernel.periods import Period
from meterline.kernel.sharing import Sharing

BUILDING_SECONDS = 30
"""How long the building of a row may take, before it counts as given up: as long as a query."""

_Place = tuple[str, str, str]
"""Namespace, subject and feature key."""


class TrackedUsage(Protocol):
    """The meters' side: usage that the sink adds up, and the position it has reached."""

    async def track(self, query: UsageQuery, since: datetime) -> Tracking | None:
        """Which points are the usage since an instant; None when the sink cannot tell now."""
        ...

    def is_tracked(self, series: int) -> bool:
        """Whether a series is still the sink's."""
        ...

    async def as_of(self) -> datetime:
        """Up to when acknowledged events are in live rows."""
        ...

    async def positions(self, conn: AsyncConnection) -> Mapping[int, int]:
        """The sink's position in each partition."""
        ...

    async def hold(self, conn: AsyncConnection, series: int) -> Mapping[int, int] | None:
        """The same, and none moves until the transaction has ended.

        None when the sink does not add the series up any more.
        """
        ...

    async def read_through(
        self, query: UsageQuery, spans: Sequence[Period], through: Mapping[int, int]
    ) -> Sequence[Decimal | None]:
        """The meter's value over each span, of events up to a position."""
        ...

    async def due(
        self, query: UsageQuery, now: datetime, through: Mapping[int, int]
    ) -> Sequence[Due]:
        """Usage at or after `now`, of events up to a position."""
        ...


class LiveEntitlements:
    """Answers from live rows, and makes them."""

    def __init__(
        self, database: Database, hot: HotReads, values: ValueService, usage: TrackedUsage
    ) -> None:
        """`values` calculates what no row answers; it must not use live entitlements itself."""
        self._database = database
        self._hot = hot
        self._values = values
        self._usage = usage
        self._building = Sharing[_Place, bool]()
        self._started = to_micros(values.now())

    async def look_up(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """The answer, if one look-up can give it."""
        row = await live.stored_at(self._hot, namespace, subject, feature_key, now)
        return None if row is None else self._answer(live.decode(row), now)

    async def get(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """The answer; None when no row can be had now, and the answer must be calculated."""
        place = (namespace, subject, feature_key)
        answer = await self.look_up(*place, now)
        for pause in pauses():
            if answer is not None or not await self._make(place, now):
                break
            await asyncio.sleep(pause)
            # What has changed since may have begun after the first look.
            now = max(now, self._values.now())
            # What is held is looked up with it.
            answer = await self.look_up(*place, now)
        if answer is None or answer.metered is None:
            return answer
        as_of = min(now, await self._usage.as_of())
        return replace(answer, metered=replace(answer.metered, as_of=as_of))

    async def invalidate(self, conn: AsyncConnection, entitlement_id: str) -> None:
        """Something else than usage changes the balance, in this transaction."""
        await live.invalidate(conn, entitlement_id)

    def _answer(self, row: LiveRow, now: datetime) -> Access | None:
        if row.series is not None and not self._usage.is_tracked(row.series):
            return None
        return live.answer(row, now)

    async def _make(self, place: _Place, now: datetime) -> bool:
        """Have a row made by one caller, for all who want it; see `_build`."""
        return await self._building.do(place, lambda: self._build(place, now))

    async def _build(self, place: _Place, now: datetime) -> bool:
        """Try to make the row of the entitlement in force.

        Whether it is worth another look: there is a row, or something overtook it. Else none can
        be had for now.
        """
        # The version is read before what is calculated from: no change is overlooked.
        async with self._database.read() as conn:
            kept = await live.kept(conn, *place)
        if kept is None:
            return False
        building_seconds = self._building_seconds(kept, now)
        if building_seconds is not None:
            # One that takes long may have died: who can do without a row must not wait for that.
            return building_seconds < PATIENCE_SECONDS
        namespace, subject, _ = place
        found = await self._values.load(namespace, subject, kept.entitlement_id, now)
        if now not in found.entitlement.lifetime:
            return False
        if found.entitlement.metered is None:
            plain = LiveRow(kept.entitlement_id, None, ZERO, (), _plain_state(found))
            async with self._database.transaction() as conn:
                await building.save(conn, namespace, subject, plain, kept.version)
            return True
        metered = await self._values.metered(found)
        if metered.allowance.terms.metering is not Metering.ADDITIVE:
            return False
        planned = plan(metered.allowance, now)
        tracking = await self._usage.track(metered.query, planned.phases[-1].start)
        if tracking is None:
            return False
        await self._follow(found, metered, planned, tracking, kept)
        return True

    def _building_seconds(self, kept: Kept, now: datetime) -> float | None:
        """For how long somebody has built the row; None when nobody does, as far as one can tell.

        Whoever began before this process may have died with the one before it. To take the row
        from one that lives costs that one a try, and nothing else.
        """
        since = kept.building_since
        if since is None or since < self._started:
            return None
        seconds = abs(to_micros(now) - since) / 1_000_000
        return seconds if seconds < BUILDING_SECONDS else None

    async def _follow(
        self, found: Loaded, metered: Metered, planned: Plan, tracking: Tracking, kept: Kept
    ) -> None:
        """Make a row that follows its series, unless something overtakes it."""
        one = found.entitlement
        whose = (one.id, one.namespace, one.subject, one.feature_key)
        version = kept.version + 1
        async with self._database.transaction() as conn:
            through = await self._usage.hold(conn, tracking.series)
            if through is None or not await building.begin(
                conn, whose, tracking, kept.version, planned.until
            ):
                return
        try:
            row = await self._calculated(found, metered, planned, tracking, through)
            async with self._database.transaction() as conn:
                # A partition that was new then may have moved before it could be held.
                whole = (await self._usage.positions(conn)).keys() <= through.keys()
                if not whole or await building.finish(conn, row, version) is None:
                    await building.abandon(conn, one.id, version)
        except Exception:
            with suppress(MeterlineError):
                async with self._database.transaction() as conn:
                    await building.abandon(conn, one.id, version)
            raise

    async def _calculated(
        self,
        found: Loaded,
        metered: Metered,
        planned: Plan,
        tracking: Tracking,
        through: Mapping[int, int],
    ) -> LiveRow:
        """The row, with the usage of events up to the positions."""
        now, query = planned.until, metered.query
        spans = [*planned.spans, Period(now, LATEST)]
        *values, later = await self._usage.read_through(query, spans, through)
        opening = burn(planned, values).opening
        last = planned.spans[-1] if planned.spans else None
        usage = values[-1] if last is not None and last.start == opening.at else None
        rules = found.entitlement.metered
        state = replace(
            _plain_state(found),
            is_soft_limit=rules is not None and rules.is_soft_limit,
            standing=Standing(opening, next_change(metered.allowance, now)),
        )
        due = () if later is None else await self._usage.due(query, now, through)
        return LiveRow(found.entitlement.id, tracking.series, usage or ZERO, tuple(due), state)


def _plain_state(found: Loaded) -> LiveState:
    entitlement = found.entitlement
    return LiveState(
        entitlement.feature_key,
        entitlement.lifetime.start,
        entitlement.lifetime.end,
        config=entitlement.config,
    )
