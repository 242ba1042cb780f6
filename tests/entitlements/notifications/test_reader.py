"""What rules look at, read from real entitlements; and rules over a real engine."""

from datetime import timedelta
from decimal import Decimal

from entitlements.live import NoLiveValues
from entitlements.notifications.evaluator import Evaluator
from entitlements.notifications.model import EventType, RuleSpec
from entitlements.notifications.options import NotificationOptions
from entitlements.notifications.reader import EntitlementReader
from entitlements.notifications.service import NotificationService
from entitlements.notifications.stores.checks import request_check
from meterline.kernel.instants import parse_instant
from meterline.kernel.periods import Period
from tests.entitlements.notifications.build import channel_and_rule, event_keys, threshold
from tests.support.entitlements import Bench

T = parse_instant


def reader_of(bench: Bench) -> EntitlementReader:
    return EntitlementReader(bench.database, bench.services.values, NoLiveValues(), bench.clock)


async def test_a_value_is_what_the_api_says(bench: Bench) -> None:
    feature = await bench.feature()
    made = await bench.entitle(issueAfterReset=50)
    granted = await bench.grant(
        100, effectiveAt="2026-03-01T12:00:00Z", expiration={"duration": "DAY", "count": 10}
    )
    bench.clock.advance(3_600)
    bench.use(30)
    reader = reader_of(bench)
    value = await reader.value(made["id"], bench.clock())
    assert value is not None
    shown = await bench.value()
    assert (value.balance, value.usage, value.total_available_grant_amount) == (
        shown["balance"],
        shown["usage"],
        shown["totalAvailableGrantAmount"],
    )
    assert value.period == Period(T("2026-03-01T12:00:00Z"), T("2026-04-01T12:00:00Z"))
    assert (value.subject, value.feature.id, value.feature.key) == (
        "alice",
        feature["id"],
        "tokens",
    )
    (expiring,) = value.grants
    assert expiring.id == granted["id"]
    assert expiring.expires_at == T("2026-03-11T12:00:00Z")
    assert value.documents["entitlement"]["id"] == made["id"]
    assert value.documents["feature"]["key"] == "tokens"
    earlier = await reader.value(made["id"], T("2026-03-01T12:30:00Z"))
    assert earlier is not None
    assert (earlier.usage, earlier.balance) == (Decimal(0), Decimal(150))


async def test_what_has_no_value(bench: Bench) -> None:
    await bench.feature()
    await bench.feature("flag", meterSlug=None)
    metered = await bench.entitle()
    flag = await bench.entitle(type="boolean", featureKey="flag")
    reader = reader_of(bench)
    assert await reader.value(flag["id"], bench.clock()) is None
    assert await reader.value("01J5UNKNOWN000000000000000", bench.clock()) is None
    assert await reader.value(metered["id"], bench.clock() - timedelta(days=1)) is None
    assert await reader.metered("default", "", 10) == [metered["id"]]
    assert await reader.metered("default", metered["id"], 10) == []
    assert await reader.metered("other", "", 10) == []
    found = await reader.feature("default", "tokens")
    assert found is not None
    assert await reader.feature("default", found.id) == found
    assert await reader.feature("other", "tokens") is None
    bench.clock.advance(60)
    await bench.call("DELETE", "/subjects/alice/entitlements/tokens", status=204)
    assert await reader.value(metered["id"], bench.clock()) is None
    assert await reader.metered("default", "", 10) == []
    bench.meters.meters.clear()
    assert await reader.value(metered["id"], bench.clock() - timedelta(seconds=30)) is None


async def test_rules_over_a_month_of_the_real_engine(bench: Bench) -> None:
    reader = reader_of(bench)
    service = NotificationService(bench.database, reader, bench.clock)
    evaluator = Evaluator(bench.database, reader, bench.clock, NotificationOptions())
    await bench.feature()
    made = await bench.entitle()
    start = {"effectiveAt": "2026-03-01T12:00:00Z"}
    await bench.grant(100, **start, expiration={"duration": "DAY", "count": 20})
    limits = (threshold("usage_percentage", 50), threshold("balance_value", 0))
    await channel_and_rule(
        service, RuleSpec(EventType.BALANCE_THRESHOLD, "rule", (), thresholds=limits)
    )
    for kind in (EventType.RESET, EventType.EXHAUSTED, EventType.GRANTS_EXPIRING):
        await channel_and_rule(service, RuleSpec(kind, "rule", ()))

    async def settle() -> None:
        async with bench.database.transaction() as conn:
            await request_check(conn, made["id"], bench.clock())
        while await evaluator.run_once():
            pass

    await settle()
    for _ in range(35):
        bench.clock.advance(86_400)
        bench.use(4)
        await settle()
    found = await event_keys(bench.database)
    assert len(set(found)) == len(found)
    assert sorted({kind for kind, _ in found}) == [
        "entitlements.balance.threshold",
        "entitlements.exhausted",
        "entitlements.reset",
        "grants.expiring",
    ]
    thresholds = [what for kind, what in found if kind == "entitlements.balance.threshold"]
    # The grant ends unused in part: the balance falls to nothing, without usage having reached it.
    assert thresholds == ["50 2026-03-01", "0 2026-03-01"]
    bench.clock.advance(60)
    await bench.reset({})
    await settle()
    assert [kind for kind, _ in await event_keys(bench.database)][-1] == "entitlements.reset"
    value = await reader.value(made["id"], bench.clock())
    assert value is not None
    assert value.balance == Decimal(0)
