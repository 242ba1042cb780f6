"""A state machine of holds: whatever happens in whatever order, the books are right."""

import asyncio
import tempfile
from contextlib import AsyncExitStack
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from entitlements.balance.exact import ZERO, total
from entitlements.builtin import CREDITS
from entitlements.credits.service import CreditGrant
from entitlements.events import UsageEvent
from entitlements.holds.model import Hold, OnExcess, Place, State
from entitlements.holds.service import HoldFilter, HoldRequest
from meterline.kernel.errors import ConflictError, UnavailableError
from meterline.kernel.instants import to_micros
from tests.support.clock import FixedClock
from tests.support.database import migrated
from tests.support.holding import NAMESPACE, crediting, holding

PLACE = Place(NAMESPACE, "ann", CREDITS)
AMOUNTS = st.integers(1, 60).map(Decimal)
HOLDS = st.integers(0, 11)


class Holds(RuleBasedStateMachine):
    """One subject's credits, with a model of what must come of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FixedClock()
        self.stack = AsyncExitStack()
        self.known: dict[str, Hold] = {}
        self.late = ZERO
        """Usage that nobody held: it may pass what was granted."""
        self.events = 0

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    async def _open(self) -> None:
        database = await self.stack.enter_async_context(migrated(Path(self.folder.name)))
        self.on = await self.stack.enter_async_context(holding(database, self.clock))
        self.kit = await self.stack.enter_async_context(crediting(self.on))

    @initialize()
    def begin(self) -> None:
        self.run(self._open())
        self.run(self.kit.credits.grant(NAMESPACE, "ann", CreditGrant(Decimal(50))))

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.loop.close()
        self.folder.cleanup()

    @rule(amount=AMOUNTS, hours=st.none() | st.integers(1, 48))
    def refill(self, amount: Decimal, hours: int | None) -> None:
        expires = None if hours is None else self.clock() + timedelta(hours=hours)
        self.run(self.kit.credits.grant(NAMESPACE, "ann", CreditGrant(amount, expires_at=expires)))

    @rule(
        number=HOLDS,
        amount=AMOUNTS,
        ttl=st.sampled_from([0, 60, 3600]),
        excess=st.sampled_from(OnExcess),
    )
    def hold(self, number: int, amount: Decimal, ttl: int, excess: OnExcess) -> None:
        name = f"h{number}"
        request = HoldRequest(PLACE, amount, name, Decimal(ttl), excess)
        before = self.known.get(name)
        left = self._available()
        try:
            hold = self.run(self.kit.holds.request(request))
        except ConflictError:
            assert before is not None
            return
        if before is None:
            assert hold.state is (State.OPEN if amount <= left else State.FAILED)
        else:
            assert hold.opening == before.opening
        self.known[name] = hold

    @rule(number=HOLDS, amount=st.none() | st.integers(0, 90).map(Decimal))
    def confirm(self, number: int, amount: Decimal | None) -> None:
        before = self._now(f"h{number}")
        if before is None:
            return
        try:
            hold = self.run(self.kit.holds.confirm(NAMESPACE, before.id, amount))
        except ConflictError:
            too_much = amount is not None and amount > before.amount
            denied = too_much and before.opening.on_excess is OnExcess.DENY
            wanted = before.amount if amount is None else amount
            other = before.state is State.CONFIRMED and before.confirmed != wanted
            closed = before.state not in (State.OPEN, State.CONFIRMED)
            assert closed or other or denied
            return
        assert before.state in (State.OPEN, State.CONFIRMED)
        self.known[before.id] = hold

    @rule(number=HOLDS)
    def release(self, number: int) -> None:
        before = self._now(f"h{number}")
        if before is None:
            return
        try:
            self.known[before.id] = self.run(self.kit.holds.release(NAMESPACE, before.id))
        except ConflictError:
            assert before.state not in (State.OPEN, State.RELEASED)
        else:
            assert before.state in (State.OPEN, State.RELEASED)

    @rule(seconds=st.sampled_from([0.001, 59.999999, 60.0, 3600.0, 86_400.0, 2_700_000.0]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def sink_catches_up(self) -> None:
        self.run(self.on.sink.catch_up())

    @rule(amount=st.integers(1, 30).map(Decimal), hours=st.integers(0, 100))
    def late_event(self, amount: Decimal, hours: int) -> None:
        self.events += 1
        time = self.clock() - timedelta(hours=hours)
        event = UsageEvent(
            f"e{self.events}", "/app", "meterline.credits", "ann", time, {"amount": str(amount)}
        )
        self.late += amount
        # By way of the gateway, whatever ails our own writer.
        self.on.sink.waiting.append((NAMESPACE, event))

    @rule(broken=st.booleans())
    def log(self, broken: bool) -> None:
        self.on.sink.broken = UnavailableError("the log is full") if broken else None

    @rule()
    def restart(self) -> None:
        """What is only in memory is lost; what was counted stays counted."""
        sink, meters = self.on.sink, self.on.meters
        self.run(self.stack.aclose())
        self.stack = AsyncExitStack()
        self.run(self._open())
        self.on.meters.used += meters.used
        self.on.meters.meters.update(meters.meters)
        self.on.sink.waiting, self.on.sink.seen = sink.waiting, sink.seen

    @rule()
    def background(self) -> None:
        self.clock.advance(20)
        try:
            self.run(self.kit.worker.round())
        except UnavailableError:
            assert self.on.sink.broken is not None

    @invariant()
    def the_books_are_right(self) -> None:
        balance, entries = self.run(self.kit.credits.history(NAMESPACE, "ann", None, 10_000))
        assert total(one.amount for one in entries) == balance.balance
        held, pending = self._set_aside()
        assert balance.held == held
        assert balance.available == balance.balance - held
        granted_use = total(one.excess for one in self.known.values())
        # Only what was charged without a hold, or came late, or lost its grant to time, may pass.
        if not granted_use and not self.late and not self._grants_end():
            assert balance.available >= 0
        assert pending >= 0

    @invariant()
    def it_agrees_with_the_meter(self) -> None:
        """Once all is sent and counted, the meter says what was confirmed."""
        if self.on.sink.broken is not None:
            return
        self.run(self.kit.holds.resend())
        self.run(self.kit.holds.sender.flush())
        if self.on.sink.waiting or self._set_aside()[1]:
            return
        used = total(one.event.amount for one in self.on.meters.used)
        confirmed = total(one.confirmed or ZERO for one in self.known.values())
        late = total(
            one.event.amount for one in self.on.meters.used if one.dims.get("kind", "") == ""
        )
        assert used == confirmed + late

    def _now(self, name: str) -> Hold | None:
        if name not in self.known:
            return None
        hold: Hold = self.run(self.kit.holds.get(NAMESPACE, name))
        return hold

    def _available(self) -> Decimal:
        balance = self.run(self.kit.credits.balance(NAMESPACE, "ann"))
        return Decimal(balance.available)

    def _grants_end(self) -> bool:
        grants = self.run(self.on.grants.of_entitlement(NAMESPACE, "ann", CREDITS))
        return any(one.grant.expires_at is not None for one in grants)

    def _set_aside(self) -> tuple[Decimal, Decimal]:
        """By the holds themselves."""
        holds = self.run(self.kit.holds.list(NAMESPACE, HoldFilter("ann"), 1_000))
        now = to_micros(self.clock())
        for one in holds:
            if one.state is State.OPEN:
                assert one.expires_at is None or now < one.expires_at
        held = total(one.amount for one in holds if one.state is State.OPEN)
        pending = total(
            one.confirmed or ZERO
            for one in holds
            if one.state is State.CONFIRMED and not one.settled
        )
        return held, pending


TestHolds = Holds.TestCase
# Shrinking takes many minutes of transactions: the seed that is printed is enough.
TestHolds.settings = settings(
    max_examples=10,
    stateful_step_count=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    report_multiple_bugs=False,
)
