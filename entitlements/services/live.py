"""Live entitlements: the fast answer to "may this subject use this feature now?".

A look-up finds the state since the last change and the usage that the sink has added up since.
When there is none, or time has passed its next change, the whole balance is calculated once and
kept. Keeping it is safe in the face of everything that goes on meanwhile: the usage is read up to
the sink's position, and the row is only written if neither the position nor the entitlement has
moved since; otherwise the calculation starts again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.access import Access, Lifetime, boolean_access, metered_access, static_access
from entitlements.balance import Allowance, burn, plan
from entitlements.balance.exact import ZERO
from entitlements.balance.metering import Metering
from entitlements.balance.standing import Standing, next_change
from entitlements.stores import live
from entitlements.stores.live import Due, LiveRow, LiveState, Tracking
from meterline.db.engine import Database
from meterline.db.hot import HotReads
from meterline.kernel.meters import Meter
from meterline.kernel.periods import Period

_TRIES = 4


@dataclass(frozen=True, slots=True)
class Metered:
    """What a metered entitlement is calculated from, besides usage."""

    allowance: Allowance
    meter: Meter
    filters: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Loaded:
    """An entitlement as it is in the database. Without `metered` and `config` it is boolean."""

    entitlement_id: str
    feature_key: str
    lifetime: Lifetime
    config: str | None = None
    metered: Metered | None = None


class Source(Protocol):
    """Where entitlements come from."""

    async def load(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Loaded | None:
        """The entitlement in force, None when there is none."""
        ...


class TrackedUsage(Protocol):
    """The meters' side: usage that the sink adds up, and the position it has reached."""

    def track(self, metered: Metered, since: datetime) -> Tracking | None:
        """Which points are the usage since an instant; None when the sink cannot tell now."""
        ...

    def is_tracked(self, series: int) -> bool:
        """Whether a series is still the sink's."""
        ...

    async def positions(self, conn: AsyncConnection) -> Mapping[int, int]:
        """The sink's position in each partition."""
        ...

    async def read(
        self, metered: Metered, subject: str, spans: Sequence[Period], through: Mapping[int, int]
    ) -> Sequence[Decimal | None]:
        """The meter's value over each span, of events up to a position."""
        ...

    async def due(
        self, metered: Metered, subject: str, now: datetime, through: Mapping[int, int]
    ) -> Sequence[Due]:
        """Usage at or after `now`, of events up to a position."""
        ...


class LiveEntitlements:
    """Answers from live rows, and makes them."""

    def __init__(
        self, database: Database, hot: HotReads, source: Source, usage: TrackedUsage
    ) -> None:
        self._database = database
        self._hot = hot
        self._source = source
        self._usage = usage

    def look_up(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """The answer, if one look-up can give it."""
        row = live.look_up(self._hot, namespace, subject, feature_key)
        return None if row is None else self._answer(row, now)

    async def get(
        self, namespace: str, subject: str, feature_key: str, now: datetime
    ) -> Access | None:
        """The answer; None when there is no such entitlement, or the sink does not follow it."""
        return self.look_up(namespace, subject, feature_key, now) or await self._calculate(
            namespace, subject, feature_key, now
        )

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
            found = await self._source.load(namespace, subject, feature_key, now)
            if found is None:
                return None
            # The version is read before what is calculated from, so no change is overlooked.
            async with self._database.read() as conn:
                version = await live.version_of(conn, found.entitlement_id)
                positions = await self._usage.positions(conn)
            found = await self._source.load(namespace, subject, feature_key, now)
            calculated = None if found is None else await self._row(found, subject, now, positions)
            if calculated is None:
                return None
            row, tracking = calculated
            async with self._database.transaction() as conn:
                held = await live.version_of(conn, row.entitlement_id) == version
                if held and await self._usage.positions(conn) == positions:
                    await live.save(conn, namespace, subject, row, tracking, version)
                    break
        return None if row is None else self._answer(row, now)

    async def _row(
        self, found: Loaded, subject: str, now: datetime, positions: Mapping[int, int]
    ) -> tuple[LiveRow, Tracking | None] | None:
        """A row for an entitlement, with its usage up to the positions."""
        lifetime, metered = found.lifetime, found.metered
        if metered is None:
            state = LiveState(found.feature_key, lifetime.start, lifetime.end, config=found.config)
            return LiveRow(found.entitlement_id, None, ZERO, (), state), None
        terms = metered.allowance.terms
        if terms.metering is not Metering.ADDITIVE:
            return None
        planned = plan(metered.allowance, now)
        values = await self._usage.read(metered, subject, planned.spans, positions)
        opening = burn(planned, values).opening
        tracking = self._usage.track(metered, opening.at)
        if tracking is None:
            return None
        last = planned.spans[-1] if planned.spans else None
        usage = values[-1] if last is not None and last.start == opening.at else None
        state = LiveState(
            found.feature_key,
            lifetime.start,
            lifetime.end,
            is_soft_limit=terms.is_soft_limit,
            standing=Standing(opening, next_change(metered.allowance, now)),
        )
        due = tuple(await self._usage.due(metered, subject, now, positions))
        row = LiveRow(found.entitlement_id, tracking.series, usage or ZERO, due, state)
        return row, tracking
