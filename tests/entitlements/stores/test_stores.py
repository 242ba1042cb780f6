"""What is kept comes back as it was; what must be unique is."""

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import IntegrityError

from entitlements.balance import Grant, Reset
from entitlements.model import (
    Entitlement,
    EntitlementType,
    Expiration,
    Feature,
    IssuedGrant,
    MeteredRules,
)
from entitlements.stores import entitlements as entitlement_store
from entitlements.stores import features as feature_store
from entitlements.stores import grants as grant_store
from meterline.db.engine import Database
from meterline.kernel.ids import new_ulid
from meterline.kernel.periods import Interval, Recurrence
from tests.support.database import opened
from tests.support.entitlements import Bench

T0 = datetime(2026, 1, 1, tzinfo=UTC)
FEATURE = Feature(new_ulid(T0), "default", "f", "F", "m", {"k": ("a", "b")}, {"x": "y"}, T0, T0)

amounts = st.decimals(0, 10**20, allow_nan=False, places=18).map(lambda one: one.normalize())
instants = st.datetimes(datetime(1900, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC))
zones = st.sampled_from([None, ZoneInfo("UTC"), ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Tokyo")])
intervals = st.builds(
    Interval,
    st.integers(0, 40),
    st.integers(0, 40),
    st.integers(1, 10**9).map(lambda n: timedelta(milliseconds=n)),
)
recurrences = st.builds(Recurrence, instants, intervals, zones)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


async def kept(database: Database, entitlement: Entitlement) -> Entitlement:
    async with database.transaction() as conn:
        if await feature_store.find(conn, "default", FEATURE.id) is None:
            await feature_store.add(conn, FEATURE)
        await entitlement_store.add(conn, entitlement)
    return entitlement


def metered(subject: str = "alice", **fields: object) -> Entitlement:
    plain = {
        "id": new_ulid(T0), "namespace": "default", "subject": subject, "feature_id": FEATURE.id,
        "feature_key": "f", "type": EntitlementType.METERED,
        "usage_period": Recurrence(T0, Interval(months=1)), "metered": MeteredRules(T0),
        "config": None, "metadata": {}, "created_at": T0, "updated_at": T0,
    }  # fmt: skip
    return Entitlement(**{**plain, **fields})  # type: ignore[arg-type]


def test_everything_of_an_entitlement_comes_back(any_url: str) -> None:
    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(recurrences, instants, amounts, st.booleans(), st.dictionaries(texts, texts))
    def check(
        period: Recurrence, start: datetime, amount: Decimal, flag: bool, metadata: dict[str, str]
    ) -> None:
        rules = MeteredRules(start, flag, not flag, amount if flag else None, 7)
        one = metered(new_ulid(T0), usage_period=period, metered=rules, metadata=metadata)

        async def round_trip() -> None:
            async with opened(any_url) as database:
                await kept(database, one)
                async with database.read() as conn:
                    assert await entitlement_store.by_id(conn, "default", one.id) == one
                    found = await feature_store.by_ids(conn, [FEATURE.id])
                    assert found == {FEATURE.id: FEATURE}

        asyncio.run(round_trip())

    check()


def test_everything_of_a_grant_and_a_reset_comes_back(any_url: str) -> None:
    @settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
    @given(recurrences | st.none(), instants, amounts, amounts, st.booleans() | st.none())
    def check(
        recurrence: Recurrence | None,
        at: datetime,
        amount: Decimal,
        other: Decimal,
        flag: bool | None,
    ) -> None:
        one = metered(new_ulid(T0))
        grant = Grant(
            new_ulid(T0), amount, at, at, 3, at if flag else None, None if flag else at,
            amount, other, recurrence,
        )  # fmt: skip
        expiration = Expiration("P1M", 3) if flag else None
        issued = IssuedGrant(grant, "default", one.id, expiration, flag is True, {"a": "b"}, at)
        reset = Reset(at, flag is True, flag)

        async def round_trip() -> None:
            async with opened(any_url) as database:
                await kept(database, one)
                async with database.transaction() as conn:
                    await grant_store.add(conn, issued)
                    await grant_store.add_reset(conn, one.id, reset, at)
                async with database.read() as conn:
                    grants = await grant_store.of_entitlements(conn, [one.id])
                    assert grants[one.id] == [issued]
                    assert (await grant_store.resets_of(conn, [one.id]))[one.id] == [reset]

        asyncio.run(round_trip())

    check()


async def test_the_database_itself_allows_one_active_entitlement(any_url: str) -> None:
    async with opened(any_url) as database:
        first = await kept(database, metered())
        with pytest.raises(IntegrityError):
            await kept(database, metered())
        await kept(database, metered("bob"))
        await kept(database, metered(namespace="other"))
        async with database.transaction() as conn:
            assert await entitlement_store.end(conn, first, T0 + timedelta(days=1))
            assert not await entitlement_store.end(conn, first, T0 + timedelta(days=2))
        second = await kept(database, metered())
        async with database.read() as conn:
            found = await entitlement_store.find(conn, "default", "alice", "f")
        assert [one.id for one in found] == [second.id, first.id]


async def test_grants_made_at_once_are_made_one_after_the_other(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    made = await asyncio.gather(*(bench.grant(10) for _ in range(12)))
    times = [one["createdAt"] for one in made]
    assert len(set(times)) == 12
    listed = await bench.call("GET", "/subjects/alice/entitlements/tokens/grants")
    assert [one["createdAt"] for one in listed] == sorted(
        times, key=lambda text: datetime.fromisoformat(text.replace("Z", "+00:00"))
    )
