"""Values over HTTP: what may be used, to the last digit."""

from decimal import Decimal

from tests.support.entitlements import Bench


async def test_a_grant_is_used_up(bench: Bench) -> None:
    await bench.feature()
    await bench.entitle()
    granted = await bench.grant(100)
    bench.clock.advance(60)
    bench.use("30.5")
    assert await bench.value() == {
        "hasAccess": True,
        "balance": Decimal("69.5"),
        "usage": Decimal("30.5"),
        "overage": 0,
        "totalAvailableGrantAmount": 100,
        "held": 0,
        "available": Decimal("69.5"),
        "asOf": "2026-03-01T12:00:59.75Z",
        "grantBalances": {granted["id"]: Decimal("69.5")},
    }
    bench.clock.advance(60)
    bench.use(70)
    value = await bench.value()
    assert (value["hasAccess"], value["balance"], value["overage"]) == (False, 0, Decimal("0.5"))
