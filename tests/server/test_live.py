"""Live rows say what a full calculation says, whatever happened on the way."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from entitlements.model import EntitlementType
from entitlements.services.live import LiveEntitlements
from entitlements.specs import (
    EntitlementSpec,
    FeatureSpec,
    GrantSpec,
    MeasureFrom,
    RecurrenceSpec,
    ResetSpec,
)
from meterline.kernel.instants import format_instant
from meterline.kernel.meters import Aggregation, MeterSpec
from meterline.kernel.periods import parse_interval
from tests.support.clock import FixedClock
from tests.support.entitled import Entitled, entitled
from tests.support.usage import canonical, send

SUBJECTS = ("ann", "bob")
FEATURES = ("tokens", "some_models", "calls", "peak")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _meter(slug: str, aggregation: Aggregation, value: str | None = "$.n") -> MeterSpec:
    return MeterSpec(
        slug, slug, None, aggregation, "llm.usage", value, {"model": "$.model"}, None, {}
    )


METERS = [
    _meter("tokens", Aggregation.SUM),
    _meter("calls", Aggregation.COUNT, None),
    _meter("peak", Aggregation.MAX),
]


@dataclass
class Walk:
    """A random walk through the life of a few entitlements."""

    on: Entitled
    chance: random.Random
    sent: int = 0
    looked_up: int = 0
    live_answers: int = 0
    grants: list[str] = field(default_factory=list)

    async def set_up(self) -> None:
        specs = [
            FeatureSpec("tokens", "tokens", "tokens"),
            FeatureSpec("some_models", "some models", "tokens", {"model": ("m0", "m1")}),
            FeatureSpec("calls", "calls", "calls"),
            FeatureSpec("peak", "peak", "peak"),
        ]
        for spec in specs:
            await self.on.features.create("default", spec)
            for subject in SUBJECTS:
                entitlement = EntitlementSpec(
                    EntitlementType.METERED,
                    spec.key,
                    usage_period=RecurrenceSpec(parse_interval("DAY")),
                    measure_from=MeasureFrom.NOW,
                    preserve_overage_at_reset=spec.key == "calls",
                    issue_after_reset=Decimal("10.5"),
                )
                await self.on.entitlements.create("default", subject, entitlement)

    async def step(self) -> None:
        actions = [self._use] * 6 + [self._wait] * 3 + [self._grant, self._void, self._reset]
        await self.chance.choice(actions)()

    async def _use(self) -> None:
        now = self.on.clock()
        events = []
        for _ in range(self.chance.randrange(1, 6)):
            # Mostly just now, at times much too late, at times ahead of this clock.
            ago = self.chance.choice([0, 0, 1, 1, 60, 3_600, 100_000, -5, -4_000])
            at = now - timedelta(seconds=ago, milliseconds=self.chance.randrange(1000))
            data = (
                f'{{"n": {self.chance.randrange(40)}.25, "model": "m{self.chance.randrange(3)}"}}'
            )
            subject = self.chance.choice((*SUBJECTS, "nobody"))
            self.sent += 1
            text = format_instant(at)
            events.append(canonical(f"e{self.sent}", data, subject=subject, time=text))
        again = events[: self.chance.randrange(2)]
        await send(self.on.rig.log, [*events, *again])

    async def _wait(self) -> None:
        self.on.clock.advance(self.chance.choice([0.001, 0.5, 7, 90, 4_000, 50_000]))

    async def _grant(self) -> None:
        spec = GrantSpec(
            Decimal(self.chance.randrange(1, 60)) / 4,
            self.on.clock() - timedelta(seconds=self.chance.choice([0, 0, 30, 200_000])),
            priority=self.chance.randrange(1, 4),
            max_rollover=Decimal(self.chance.randrange(3)),
            recurrence=self.chance.choice([None, RecurrenceSpec(parse_interval("PT9H"))]),
        )
        who, what = self.chance.choice(SUBJECTS), self.chance.choice(FEATURES)
        try:
            issued = await self.on.grants.create("default", who, what, spec)
        except Exception as error:
            assert "before" in str(error), error  # back-dated into a time without entitlement
        else:
            self.grants.append(issued.grant.id)

    async def _void(self) -> None:
        if self.grants:
            await self.on.grants.void("default", self.grants.pop(), None)

    async def _reset(self) -> None:
        who, what = self.chance.choice(SUBJECTS), self.chance.choice(FEATURES)
        spec = ResetSpec(retain_anchor=self.chance.random() < 0.5)
        self.on.clock.advance(1)
        await self.on.entitlements.reset("default", who, what, spec)

    async def check(self) -> None:
        await self.on.rig.settle()
        now = self.on.clock()
        for subject in SUBJECTS:
            for feature in FEATURES:
                self.looked_up += 1
                if await self.on.live.look_up("default", subject, feature, now) is not None:
                    self.live_answers += 1
                found = await self.on.values.value("default", subject, feature)
                expected = await self.on.plain.value("default", subject, feature)
                assert found == expected, (subject, feature, now)
            everything = await self.on.plain.access("default", subject)
            assert await self.on.values.access("default", subject) == everything


@pytest.mark.parametrize("seed", [1, 2])
async def test_live_rows_agree_with_full_calculations(tmp_path: Path, seed: int) -> None:
    print(f"seed {seed}")
    async with entitled(tmp_path, METERS, FixedClock(START)) as on:
        walk = Walk(on, random.Random(seed))
        await walk.set_up()
        for _ in range(40):
            await walk.step()
            await walk.check()
        # The rows were used, or the comparison would say nothing.
        assert walk.live_answers > walk.looked_up / 4


async def test_a_row_that_nobody_threw_away_would_be_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def keep(*_: object) -> None:
        return None

    monkeypatch.setattr(LiveEntitlements, "invalidate", keep)
    async with entitled(tmp_path, METERS, FixedClock(START)) as on:
        walk = Walk(on, random.Random(1))
        await walk.set_up()
        with pytest.raises(AssertionError):
            for _ in range(40):
                await walk.step()
                await walk.check()
