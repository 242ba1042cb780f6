"""Our own SDK against a real server."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from meterline_sdk import AsyncMeterline, Meterline, NotFoundError, ValidationError, event
from tests.support.server import MeterlineServer, eventually

DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def meterline(server: MeterlineServer) -> Iterator[Meterline]:
    with Meterline(server.url) as client:
        yield client


def visible(meterline: Meterline, slug: str, subject: str, value: Decimal | int) -> None:
    """Wait until a meter says so."""

    def looks_right() -> bool:
        found = meterline.meters.query(slug, subject=subject)
        return bool(found.data) and found.data[0].value == value

    eventually(looks_right, f"{slug} of {subject} is {value}")


def test_events_meters_and_subjects(meterline: Meterline) -> None:
    made = meterline.meters.create(
        "sdk_tokens",
        event_type="sdk.usage",
        aggregation="SUM",
        value_property="$.tokens",
        group_by={"model": "$.model"},
    )
    assert meterline.meters.get("sdk_tokens").id == made.id
    assert "sdk_tokens" in [one.slug for one in meterline.meters.list()]
    amounts = [Decimal("0.1"), Decimal("12345678901234567890.000000000000000001")]
    events = [
        event("sdk.usage", "sdk-alice", {"tokens": amount, "model": f"m{number}"}, time=DAY)
        for number, amount in enumerate(amounts)
    ]
    meterline.events.ingest(events)
    meterline.events.ingest(events)  # counted once
    total = Decimal("12345678901234567890.100000000000000001")
    visible(meterline, "sdk_tokens", "sdk-alice", total)
    found = meterline.meters.query(
        "sdk_tokens",
        from_=DAY,
        to=DAY.replace(day=2),
        window_size="DAY",
        group_by=["model"],
        filter_group_by={"model": {"$in": ["m0"]}},
    )
    (row,) = found.data
    assert (row.value, row.group_by, row.window_start) == (Decimal("0.1"), {"model": "m0"}, DAY)
    assert "sdk-alice" in meterline.meters.subjects("sdk_tokens")
    stored = meterline.events.list(subject="sdk-alice")
    assert {one.event.id for one in stored} == {one["id"] for one in events}
    assert meterline.subjects.upsert("sdk-alice", display_name="Alice").display_name == "Alice"
    assert meterline.subjects.get("sdk-alice").key == "sdk-alice"
    meterline.subjects.delete("sdk-alice")
    with pytest.raises(NotFoundError):
        meterline.subjects.get("sdk-alice")


def test_what_is_wrong_is_told_with_its_place(meterline: Meterline) -> None:
    with pytest.raises(ValidationError) as caught:
        meterline.events.ingest([event("t", "s"), {"id": "only"}])
    assert {fault["index"] for fault in caught.value.faults} == {1}


def test_entitlements_and_the_portal(meterline: Meterline) -> None:
    meterline.meters.create("sdk_calls", event_type="sdk.call", aggregation="COUNT")
    meterline.features.create("sdk_calls", "Calls", meter_slug="sdk_calls")
    assert "sdk_calls" in [one.key for one in meterline.features.list()]
    meterline.entitlements.create(
        "sdk-bob",
        "sdk_calls",
        issue_after_reset=5,
        usage_period={"interval": "MONTH", "anchor": DAY},
    )
    assert meterline.entitlements.value("sdk-bob", "sdk_calls").balance == 5
    meterline.entitlements.grant("sdk-bob", "sdk_calls", Decimal("2.5"))
    value = meterline.has_access("sdk-bob", "sdk_calls")
    assert (value.has_access, value.balance, value.degraded) == (True, Decimal("7.5"), False)
    assert len(meterline.entitlements.grants("sdk-bob", "sdk_calls")) == 2
    assert meterline.entitlements.access("sdk-bob")["sdk_calls"].has_access
    token = meterline.portal.create_token("sdk-bob", allowed_meter_slugs=["sdk_calls"])
    assert token.token
    assert token.id in [one.id for one in meterline.portal.list_tokens()]
    meterline.portal.invalidate_tokens(subject="sdk-bob")


def test_events_in_the_background(server: MeterlineServer) -> None:
    with Meterline(server.url) as meterline:
        meterline.meters.create("sdk_quiet", event_type="sdk.quiet", aggregation="COUNT")
        for number in range(1_200):
            assert meterline.track_event("sdk.quiet", "sdk-carol", id=f"q{number}")
        assert meterline.buffer.flush()
        visible(meterline, "sdk_quiet", "sdk-carol", 1_200)


def test_the_asynchronous_client(server: MeterlineServer) -> None:
    async def run() -> None:
        async with AsyncMeterline(server.url) as meterline:
            await meterline.meters.create("sdk_async", event_type="sdk.async", aggregation="COUNT")
            sent = [event("sdk.async", "sdk-dora") for _ in range(20)]
            await asyncio.gather(*(meterline.events.ingest(one) for one in sent))
            assert len(await meterline.events.list(subject="sdk-dora")) <= 20

    asyncio.run(run())
