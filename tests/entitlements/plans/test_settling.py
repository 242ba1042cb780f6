"""What checks set aside goes back when usage is counted."""

import asyncio
from decimal import Decimal
from typing import Any

import pytest

from entitlements.plans import settling
from entitlements.plans.checks import Refused
from entitlements.plans.settling import Settled, Settling
from entitlements.usage_records.ports import Recorded
from meterline.kernel.errors import UnavailableError
from tests.support.planning import Planning


class Noted:
    """Holds that only note what is released; usage is counted when the test says so."""

    def __init__(self) -> None:
        self.released: list[str] = []
        self.counted = asyncio.Event()
        self.failures = 0
        self.tried = 0

    async def wait(self) -> None:
        self.tried += 1
        if self.tried <= self.failures:
            raise UnavailableError("not counted yet")
        await self.counted.wait()

    async def open(self, *_: object, **__: object) -> Refused | None:
        raise AssertionError("nothing is opened here")

    async def release(self, namespace: str, subject: str, feature_key: str, hold_id: str) -> None:
        self.released.append(hold_id)

    async def held(self, *_: object) -> Decimal:
        raise AssertionError("nobody asks")


async def until(noted: Noted, count: int) -> None:
    async with asyncio.timeout(10):
        while len(noted.released) < count:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_nothing_goes_back_before_the_usage_is_counted() -> None:
    noted = Noted()
    one = Settling(noted, noted.wait)
    one.start()
    one.recorded(Settled("default", "ann", "c1"))
    async with asyncio.timeout(10):
        while not noted.tried:  # noqa: ASYNC110
            await asyncio.sleep(0)
    one.recorded(Settled("default", "ann", "c2"))  # its usage may come after what is waited for
    assert noted.released == []
    noted.counted.set()
    await until(noted, 4)
    assert noted.released[:2] == ["c1.meterline_tokens", "c1.meterline_cost_usd"]
    assert noted.tried == 2
    await one.stop()


async def test_a_sink_that_is_away_delays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    noted = Noted()
    noted.failures = 2
    noted.counted.set()
    monkeypatch.setattr(settling, "_PAUSE_SECONDS", 0.0)
    one = Settling(noted, noted.wait)
    one.start()
    one.recorded(Settled("default", "ann", "c1"))
    await until(noted, 2)
    await one.stop()
    assert noted.tried >= 3


async def test_the_end_gives_back_what_waits() -> None:
    noted = Noted()
    noted.counted.set()
    one = Settling(noted, noted.wait)
    one.start()
    one.recorded(Settled("default", "ann", "c1"))
    await one.stop()
    assert len(noted.released) == 2


async def test_a_recorded_call_gives_its_hold_back(bench: Planning) -> None:
    await bench.plan(monthlyTokenLimit=100)
    await bench.assign()
    asked: dict[str, Any] = {"estimate": {"tokens": 90}, "hold": True}
    check_id = (await bench.check(**asked))["checkId"]
    await bench.check(402, **asked)
    await bench.use(10)
    told = Recorded("default", "ann", Decimal(10), None, Decimal(1), bench.clock(), check_id)
    await bench.kit.recorded(told)
    async with asyncio.timeout(10):
        while await bench.holding.standing("ann", "meterline_tokens") != ("0", "0"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await bench.check(**asked)
