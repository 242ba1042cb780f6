"""Live rows are built beside many sinks that never stand still, and miss nothing."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.access import Access
from entitlements.limits import EntitlementLimits
from entitlements.model import EntitlementType
from entitlements.services import patience
from entitlements.services.entitlements import EntitlementService
from entitlements.services.features import FeatureService
from entitlements.services.live import BUILDING_SECONDS, LiveEntitlements
from entitlements.services.means import Means
from entitlements.services.values import ValueService
from entitlements.specs import EntitlementSpec, FeatureSpec, RecurrenceSpec
from entitlements.stores import building, following, live
from entitlements.stores.live import Due, Followed, Kept, Tracking
from entitlements.usage import UsageQuery
from meterline.db.engine import Database
from meterline.db.hot import open_hot_reads
from meterline.kernel.errors import UnavailableError
from meterline.kernel.instants import LATEST, to_micros
from meterline.kernel.meters import Meter
from meterline.kernel.periods import Period, parse_interval
from meterline.kernel.usage import Usage
from tests.support.clock import FixedClock
from tests.support.database import opened
from tests.support.usage import meter

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
PARTS = 6
SUBJECTS = ("ann", "bob", "cid")
METER = meter("tokens")
SERIES = 1
NS = "default"
_MOST_CHANGES = 1000
_COMPARISONS = 40


@dataclass(frozen=True)
class Event:
    part: int
    offset: int
    subject: str
    time: datetime
    amount: Decimal


@dataclass
class Store:
    """The event store and the clock, which all processes share."""

    clock: FixedClock
    events: list[Event] = field(default_factory=list)

    def total(self, subject: str, span: Period, through: Mapping[int, int]) -> Decimal | None:
        amounts = [event.amount for event in self.some(subject, span, through)]
        return sum(amounts, Decimal(0)) if amounts else None

    def some(self, subject: str, span: Period, through: Mapping[int, int]) -> list[Event]:
        return [
            event
            for event in self.events
            if event.subject == subject
            and event.time in span
            and event.offset <= through.get(event.part, 0)
        ]


async def held_positions(conn: AsyncConnection) -> dict[int, int]:
    lock = " FOR SHARE" if conn.dialect.name == "postgresql" else ""
    found = await conn.execute(
        sa.text(f"SELECT part, position FROM sink_partitions ORDER BY part{lock}")
    )
    return {row.part: row.position for row in found}


Hold = Callable[[AsyncConnection, int], Awaitable[Mapping[int, int] | None]]


@dataclass
class Tracked:
    """What the meters answer one process; every answer takes a while."""

    store: Store
    chance: random.Random
    holding: Hold

    async def hold(self, conn: AsyncConnection, series: int) -> Mapping[int, int] | None:
        return await self.holding(conn, series)

    async def a_while(self) -> None:
        await asyncio.sleep(self.chance.random() / 500)

    async def read(self, query: UsageQuery, spans: Sequence[Period]) -> Sequence[Decimal | None]:
        raise AssertionError("only rows are asked for here")

    async def wait(self, timeout_seconds: float) -> None: ...

    async def meter(self, namespace: str, slug: str) -> Meter | None:
        return METER

    async def as_of(self) -> datetime:
        return self.store.clock()

    async def track(self, query: UsageQuery, since: datetime) -> Tracking | None:
        return Tracking(SERIES, False, (), since)

    def is_tracked(self, series: int) -> bool:
        return True

    async def positions(self, conn: AsyncConnection) -> Mapping[int, int]:
        found = await conn.execute(sa.text("SELECT part, position FROM sink_partitions"))
        return {row.part: row.position for row in found}

    async def read_through(
        self, query: UsageQuery, spans: Sequence[Period], through: Mapping[int, int]
    ) -> Sequence[Decimal | None]:
        await self.a_while()
        return [self.store.total(query.subject, span, through) for span in spans]

    async def due(
        self, query: UsageQuery, now: datetime, through: Mapping[int, int]
    ) -> Sequence[Due]:
        await self.a_while()
        found = self.store.some(query.subject, Period(now, LATEST), through)
        return [(to_micros(event.time), event.amount) for event in found]


async def hold(conn: AsyncConnection, series: int) -> Mapping[int, int] | None:
    return await held_positions(conn)


@dataclass
class World:
    """Databases are one for each process; all are the same."""

    databases: list[Database]
    store: Store
    chance: random.Random
    rows: list[LiveEntitlements]
    ids: dict[str, str]
    wrong: list[str] = field(default_factory=list)
    compared: int = 0
    built: int = 0
    over: bool = False

    async def sink(self, part: int) -> None:
        """What a sink does: the store first, then position and live usage in one transaction."""
        database = self.databases[part % len(self.databases)]
        offset = 0
        while not self.over:
            planned_at = self.store.clock()
            step = []
            for _ in range(self.chance.randrange(1, 4)):
                offset += 1
                ago = self.chance.choice([*[0.001] * 9, *[0.5] * 9, *[-30] * 3, 90_000])
                at = planned_at - timedelta(seconds=ago)
                amount = Decimal(self.chance.randrange(1, 1000)) / 4
                step.append(Event(part, offset, self.chance.choice(SUBJECTS), at, amount))
            self.store.events += step
            await asyncio.sleep(self.chance.random() / 500)
            async with database.transaction() as conn:
                await conn.execute(
                    sa.text("UPDATE sink_partitions SET position = :to WHERE part = :part"),
                    {"to": offset, "part": part},
                )
                if SERIES in await following.tracked_series(conn):
                    await asyncio.sleep(self.chance.random() / 1000)
                    await following.apply(conn, [_usage(one, planned_at) for one in step])
            self.store.clock.advance(0.25)

    async def build(self, rows: LiveEntitlements) -> None:
        """What a check does."""
        while not self.over:
            subject = self.chance.choice(SUBJECTS)
            if await rows.get(NS, subject, "tokens", self.store.clock()) is not None:
                self.built += 1
            await asyncio.sleep(self.chance.random() / 200)

    async def disturb(self, database: Database, comparisons: int) -> None:
        """What a change of a balance does, after rows were compared with the store.

        It ends all when enough rows were there to be compared (how soon they are built depends on
        the machine), or one is wrong.
        """
        for _ in range(_MOST_CHANGES):
            if self.compared >= comparisons or self.wrong:
                break
            await asyncio.sleep(self.chance.random() / 100)
            await self.compare(database)
            async with database.transaction() as conn:
                await live.invalidate(conn, self.ids[self.chance.choice(SUBJECTS)])
        self.over = True

    async def compare(self, database: Database) -> None:
        async with database.transaction() as conn:
            through = await held_positions(conn)
            for one in await live.followed(conn, "", 100):
                self.compared += 1
                kept, stored = self._both(one, through)
                if kept != stored:
                    self.wrong.append(f"{one.subject}: {kept}, the store says {stored}")

    def _both(self, one: Followed, through: Mapping[int, int]) -> tuple[Decimal, Decimal]:
        standing = one.row.state.standing
        assert standing is not None
        kept = one.row.usage + sum(amount for _, amount in one.row.due)
        span = Period(standing.opening.at, LATEST)
        return kept, self.store.total(one.subject, span, through) or Decimal(0)

    async def run(self, comparisons: int = _COMPARISONS) -> None:
        async with asyncio.TaskGroup() as group:
            for part in range(PARTS):
                group.create_task(self.sink(part))
            for rows in self.rows:
                group.create_task(self.build(rows))
            group.create_task(self.disturb(self.databases[0], comparisons))
        for subject in SUBJECTS:
            await self.rows[0].get(NS, subject, "tokens", self.store.clock())
        await self.compare(self.databases[0])


def _usage(event: Event, planned_at: datetime) -> Usage:
    due = event.time if event.time >= planned_at else None
    return Usage(SERIES, event.subject, (), due, event.amount, 1, event.time, event.time)


@asynccontextmanager
async def world(
    url: str, seed: int, hold: Callable[..., Awaitable[Mapping[int, int] | None]] = hold
) -> AsyncIterator[World]:
    print(f"seed {seed}")
    chance, clock = random.Random(seed), FixedClock(START)
    store = Store(clock)
    async with AsyncExitStack() as stack:
        # SQLite is for one process.
        databases = [Database.open(url) for _ in range(1 if url.startswith("sqlite") else 3)]
        for one in databases:
            stack.push_async_callback(one.close)
        rows = []
        for one in databases:
            hot = open_hot_reads(url)
            stack.push_async_callback(hot.close)
            tracked = Tracked(store, chance, hold)
            means = Means(one, tracked, clock, EntitlementLimits())
            rows += [LiveEntitlements(one, hot, ValueService(means), tracked) for _ in range(2)]
        async with databases[0].transaction() as conn:
            for part in range(PARTS):
                await conn.execute(
                    sa.text(
                        "INSERT INTO sink_partitions (part, position, epoch, owner)"
                        f" VALUES ({part}, 0, 1, '')"
                    )
                )
        await FeatureService(means).create(NS, FeatureSpec("tokens", "tokens", "tokens"))
        spec = EntitlementSpec(
            EntitlementType.METERED, "tokens", usage_period=RecurrenceSpec(parse_interval("DAY"))
        )
        services = EntitlementService(means)
        ids = {one: (await services.create(NS, one, spec)).entitlement.id for one in SUBJECTS}
        clock.advance(1)
        yield World(databases, store, chance, rows, ids)


@pytest.mark.parametrize("seed", [1, 2])
async def test_rows_agree_with_the_store_at_every_moment(any_url: str, seed: int) -> None:
    async with world(any_url, seed) as it:
        await it.run()
        assert it.wrong == []
        # The rows were there, or the comparison would say nothing.
        assert it.compared >= _COMPARISONS and it.built > 0


@dataclass
class Gate:
    """Lets buildings go on to their calculation one day; each of them knocks."""

    knocks: int = 0
    knocked: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def before(self, patch: pytest.MonkeyPatch) -> None:
        read_through = Tracked.read_through

        async def gated(
            tracked: Tracked, query: UsageQuery, spans: Sequence[Period], through: Mapping[int, int]
        ) -> Sequence[Decimal | None]:
            self.knocks += 1
            self.knocked.set()
            await self.opened.wait()
            return await read_through(tracked, query, spans, through)

        patch.setattr(Tracked, "read_through", gated)


async def test_those_who_ask_while_a_row_is_built_share_it(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(any_url, 1) as it:
        gate = Gate()
        gate.before(monkeypatch)
        asked = [
            asyncio.create_task(it.rows[0].get(NS, "ann", "tokens", it.store.clock()))
            for _ in range(8)
        ]
        await gate.knocked.wait()
        # The first one goes away, and the others have their row nevertheless.
        asked[0].cancel()
        gate.opened.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(found[0], asyncio.CancelledError)
        assert all(isinstance(one, Access) for one in found[1:])
        assert gate.knocks == 1


async def test_a_row_that_another_process_builds_is_waited_for(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(any_url, 1) as it:
        gate, looked = Gate(), asyncio.Event()
        gate.before(monkeypatch)
        first = asyncio.create_task(it.rows[0].get(NS, "ann", "tokens", it.store.clock()))
        await gate.knocked.wait()
        kept = live.kept

        async def look(conn: AsyncConnection, *place: str) -> Kept | None:
            found = await kept(conn, *place)
            looked.set()
            return found

        monkeypatch.setattr(live, "kept", look)
        second = asyncio.create_task(it.rows[1].get(NS, "ann", "tokens", it.store.clock()))
        await looked.wait()
        gate.opened.set()
        assert await first is not None
        assert await second is not None
        assert gate.knocks == 1


async def test_a_row_whose_builder_died_is_built_anew(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "PATIENCE_SECONDS", 0.05)
    async with world(any_url, 1) as it:
        clock, rows = it.store.clock, it.rows[0]

        async def die() -> None:
            gate = Gate()
            with pytest.MonkeyPatch.context() as patch:
                gate.before(patch)
                asked = asyncio.create_task(rows.get(NS, "ann", "tokens", clock()))
                await gate.knocked.wait()
                (builder,) = rows._building._under_way.values()
                builder.cancel()
                await asyncio.wait([asked])

        await die()
        # The others leave it alone, for it may be under way, and calculate for themselves.
        assert await rows.get(NS, "ann", "tokens", clock()) is None
        long_ago = timedelta(seconds=BUILDING_SECONDS)
        async with it.databases[0].read() as conn:
            assert await building.cold(conn, "", 10, clock() - long_ago) == []
        clock.advance(BUILDING_SECONDS + 1)
        async with it.databases[0].read() as conn:
            cold = await building.cold(conn, "", 10, clock() - long_ago)
            assert [one.subject for one in cold] == ["ann"]
        assert await rows.get(NS, "ann", "tokens", clock()) is not None
        # The process that comes after one that died need not wait.
        async with it.databases[0].transaction() as conn:
            await live.invalidate(conn, it.ids["ann"])
        await die()
        clock.advance(0.001)
        after = LiveEntitlements(rows._database, rows._hot, rows._values, rows._usage)
        assert await after.get(NS, "ann", "tokens", clock()) is not None


async def test_positions_that_nobody_holds_lose_usage(
    any_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_before: dict[int, int] = {}

    async def track(self: Tracked, query: UsageQuery, since: datetime) -> Tracking | None:
        async with opened(any_url) as database, database.read() as conn:
            read_before.update(await self.positions(conn))
        return Tracking(SERIES, False, (), since)

    async def let_go(_conn: AsyncConnection, _series: int) -> Mapping[int, int]:
        return dict(read_before)

    monkeypatch.setattr(Tracked, "track", track)
    async with world(any_url, 1, let_go) as it:
        await it.run(10 * _COMPARISONS)
        assert it.wrong != []


async def test_sinks_that_lock_no_rows_lose_usage(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sa.Select, "with_for_update", lambda select, **_: select)
    async with world(postgres_url, 1) as it:
        try:
            await it.run(10 * _COMPARISONS)
        except* UnavailableError:
            it.wrong.append("they wait for each other in a circle")
        assert it.wrong != []
