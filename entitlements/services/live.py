"""Live entitlements: the fast answer to "may this subject use this feature now?".

A look-up finds the state since the last change and the usage that the sink has added up since.
When there is none, or time has passed its next change, the whole balance is calculated once and
kept. Keeping it is safe in the face of everything that goes on meanwhile: the usage is read up to
the sink's position, and the row is only written if neither the position nor the entitlement has
moved since; otherwise the calculation starts again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.access import Access, Lifetime, boolean_access, metered_access, static_access
from entitlements.balance import burn, plan
from entitlements.balance.exact import ZERO
from entitlements.balance.metering import Metering
from entitlements.balance.standing import Standing, next_change
from entitlements.services.values import Loaded, ValueService
from entitlements.stores import live
from entitlements.stores.live import Due, LiveRow, LiveState, Tracking
from entitlements.usage import UsageQuery
from meterline.db.engine import Database
from meterline.db.hot import HotReads
from meterline.kernel.instants import LATEST
from meterline.kernel.periods import Period

_TRIES = 4


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

    async def look_up(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """The answer, if one look-up can give it."""
        row = await live.stored(self._hot, namespace, subject, feature_key)
        return None if row is None else self._answer(live.decode(row), now)

    async def get(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """The answer; None when there is no such entitlement, or the sink does not follow it."""
        answer = await self.look_up(namespace, subject, feature_key, now)
        if answer is None:
            answer = await self._calculate(namespace, subject, feature_key, now)
        if answer is None or answer.metered is None:
            return answer
        as_of = min(now, await self._usage.as_of())
        return replace(answer, metered=replace(answer.metered, as_of=as_of))

    async def invalidate(self, conn: AsyncConnection, entitlement_id: str) -> None:
        """Something else than usage changes the balance, in this transaction."""
        await live.invalidate(conn, entitlement_id)

    def _answer(self, row: LiveRow, now: datetime) -> Access | None:
        state = row.state
        lifetime = Lifetime(state.start, state.end)
        if state.standing is None:
            if state.config is not None:
                return static_access(now, lifetime, state.config)
            return boolean_access(now, lifetime)
        if row.series is None or not self._usage.is_tracked(row.series):
            return None
        if now not in state.standing:
            return None
        balance = state.standing.balance(row.usage_at(now), now)
        return metered_access(balance, lifetime, is_soft_limit=state.is_soft_limit)

    async def _calculate(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        row = None
        for _ in range(_TRIES):
            # The version is read before what is calculated from: no change is overlooked.
            async with self._database.read() as conn:
                version = await live.version_of(conn, namespace, subject, feature_key)
                positions = await self._usage.positions(conn)
            if version is None:
                return None
            found = await self._values.load(namespace, subject, version[0], now)
            calculated = await self._row(found, now, positions)
            if calculated is None:
                return None
            row, tracking = calculated
            async with self._database.transaction() as conn:
                held = await live.version_of(conn, namespace, subject, feature_key) == version
                if held and await self._usage.positions(conn) == positions:
                    await live.save(conn, namespace, subject, row, tracking, version[1])
                    break
        return None if row is None else self._answer(row, now)

    async def _row(
        self, found: Loaded, now: datetime, positions: Mapping[int, int]
    ) -> tuple[LiveRow, Tracking | None] | None:
        """A row for an entitlement in force, with its usage up to the positions."""
        entitlement = found.entitlement
        if now not in entitlement.lifetime:
            return None
        state = LiveState(
            entitlement.feature_key,
            entitlement.lifetime.start,
            entitlement.lifetime.end,
            config=entitlement.config,
        )
        if entitlement.metered is None:
            return LiveRow(entitlement.id, None, ZERO, (), state), None
        metered = await self._values.metered(found)
        if metered.allowance.terms.metering is not Metering.ADDITIVE:
            return None
        planned = plan(metered.allowance, now)
        ahead = Period(now, LATEST)
        spans = [*planned.spans, ahead]
        *values, later = await self._usage.read_through(metered.query, spans, positions)
        opening = burn(planned, values).opening
        tracking = await self._usage.track(metered.query, opening.at)
        if tracking is None:
            return None
        last = planned.spans[-1] if planned.spans else None
        usage = values[-1] if last is not None and last.start == opening.at else None
        state = replace(
            state,
            is_soft_limit=entitlement.metered.is_soft_limit,
            standing=Standing(opening, next_change(metered.allowance, now)),
        )
        due = () if later is None else await self._usage.due(metered.query, now, positions)
        return LiveRow(entitlement.id, tracking.series, usage or ZERO, tuple(due), state), tracking
