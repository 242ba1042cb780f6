"""What two API processes do at the same moment, on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

import pytest

from entitlements.limits import EntitlementLimits
from entitlements.model import EntitlementType
from entitlements.notifications.model import EventType, RuleSpec
from entitlements.notifications.options import NotificationLimits
from entitlements.notifications.service import ChannelSpec, NotificationService
from entitlements.services.entitlements import EntitlementService
from entitlements.services.features import FeatureService
from entitlements.services.grants import GrantService
from entitlements.services.means import Means
from entitlements.specs import EntitlementSpec, FeatureSpec, GrantSpec, RecurrenceSpec
from entitlements.stores import live
from meterline.db import mutex
from meterline.db.engine import Database
from meterline.kernel.clock import system_clock
from meterline.kernel.errors import ConflictError, ValidationError
from meterline.kernel.periods import parse_interval
from tests.entitlements.notifications.build import FakeReader
from tests.support.clock import FixedClock
from tests.support.database import opened
from tests.support.entitlements import HandMeters
from tests.support.usage import meter

NS = "default"
MOST = 3


@dataclass
class Process:
    database: Database
    features: FeatureService
    entitlements: EntitlementService
    grants: GrantService
    notifications: NotificationService


@pytest.fixture
async def processes(postgres_url: str) -> AsyncIterator[list[Process]]:
    clock = FixedClock()
    meters = HandMeters(clock)
    meters.add(meter("tokens"))
    limits = replace(EntitlementLimits(), max_features=MOST, max_entitlements=MOST)
    async with AsyncExitStack() as stack:
        found = []
        for _ in range(2):
            database = await stack.enter_async_context(opened(postgres_url))
            means = Means(database, meters, system_clock, limits)
            notifications = NotificationService(
                database,
                FakeReader(),
                system_clock,
                NotificationLimits(max_channels=MOST, max_rules=MOST),
            )
            found.append(
                Process(
                    database,
                    FeatureService(means),
                    EntitlementService(means),
                    GrantService(means),
                    notifications,
                )
            )
        yield found


async def at_once(tasks: Sequence[Awaitable[object]]) -> tuple[int, list[BaseException]]:
    """How many succeeded, and what the others say."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [one for one in results if isinstance(one, BaseException)]
    return len(results) - len(failed), failed


def spec(feature: str) -> EntitlementSpec:
    return EntitlementSpec(
        EntitlementType.METERED, feature, usage_period=RecurrenceSpec(parse_interval("MONTH"))
    )


async def test_limits_hold(processes: list[Process]) -> None:
    one, other = processes
    both = [one, other] * 4
    made, refused = await at_once(
        [on.features.create(NS, FeatureSpec(f"f{n}", "f", "tokens")) for n, on in enumerate(both)]
    )
    assert made == MOST and {type(error) for error in refused} == {ValidationError}
    made, refused = await at_once(
        [
            on.notifications.create_channel(NS, ChannelSpec(f"{n}", "https://hooks.example.com"))
            for n, on in enumerate(both)
        ]
    )
    assert made == MOST and {type(error) for error in refused} == {ConflictError}


async def test_limits_that_nobody_locks_do_not_hold(
    processes: list[Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(mutex, "alone", nothing)
    for attempt in range(50):
        made, _ = await at_once(
            [
                on.features.create(f"{NS}{attempt}", FeatureSpec(f"f{n}", "f"))
                for n, on in enumerate(processes * 4)
            ]
        )
        if made > MOST:
            return
    raise AssertionError("they never met")


async def test_what_is_unique_is_made_once(processes: list[Process]) -> None:
    both = processes * 4
    made, refused = await at_once(
        [on.features.create(NS, FeatureSpec("f", "f", "tokens")) for on in both]
    )
    assert made == 1 and {type(error) for error in refused} == {ConflictError}
    made, refused = await at_once([on.entitlements.create(NS, "ann", spec("f")) for on in both])
    assert made == 1 and {type(error) for error in refused} == {ConflictError}


async def test_grants_beside_an_override_find_the_one_in_force(processes: list[Process]) -> None:
    one, other = processes
    await one.features.create(NS, FeatureSpec("f", "f", "tokens"))
    await one.entitlements.create(NS, "ann", spec("f"))
    for _ in range(30):
        grant = GrantSpec(Decimal(1), system_clock() + timedelta(days=1))
        made, refused = await at_once(
            [
                one.entitlements.override(NS, "ann", "f", spec("f")),
                *(on.grants.create(NS, "ann", "f", grant) for on in [other, one] * 2),
            ]
        )
        assert (made, refused) == (5, [])


async def test_rows_are_thrown_away_by_many_at_once(processes: list[Process]) -> None:
    async def invalidate(database: Database) -> None:
        async with database.transaction() as conn:
            await live.invalidate(conn, "x" * 26)

    made, refused = await at_once([invalidate(on.database) for on in processes * 6])
    assert (made, refused) == (12, [])
    async with processes[0].database.read() as conn:
        found = await conn.execute(live.live_entitlements.select())
        assert [row.version for row in found] == [12]


async def test_a_channel_is_not_deleted_under_a_new_rule(processes: list[Process]) -> None:
    one, other = processes
    for number in range(4):
        made = await one.notifications.create_channel(
            f"ns{number}", ChannelSpec("c", "https://hooks.example.com")
        )
        rule = RuleSpec(EventType.EXHAUSTED, "r", (made.id,))
        done, _ = await at_once(
            [
                one.notifications.create_rule(f"ns{number}", rule),
                other.notifications.delete_channel(f"ns{number}", made.id),
            ]
        )
        assert done == 1
