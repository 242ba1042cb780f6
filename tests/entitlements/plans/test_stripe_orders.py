"""Stripe's events in any order: graces, ends, and what comes late."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entitlements.plans.options import StripeOptions
from entitlements.plans.payments.judge import Note, Step, Subscription, judge, note_of
from entitlements.plans.payments.notes import stripe_notes
from entitlements.plans.payments.notice import Kind, Notice
from meterline.db.engine import Database
from tests.support.database import opened, sqlite_url
from tests.support.paying import ended, invoice, plan_of, prepared, send
from tests.support.planning import SECRET, Planning, planning

GRACE = 3_600
_OPTIONS = StripeOptions(webhook_secrets=(SECRET,), grace_seconds=GRACE)


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Planning]:
    url = sqlite_url(tmp_path)
    async with opened(url) as database, planning(database, url, stripe=_OPTIONS) as found:
        yield await prepared(found)


@pytest_asyncio.fixture
async def any_bench(any_url: str, any_database: Database) -> AsyncIterator[Planning]:
    """For what depends on the database: what happens at the same time, and odd texts."""
    async with planning(any_database, any_url, stripe=_OPTIONS) as found:
        yield await prepared(found)


async def test_a_failed_payment_falls_back_after_the_grace(bench: Planning) -> None:
    await send(bench, invoice(bench, "invoice.paid"))
    answer = await send(bench, invoice(bench, "invoice.payment_failed", after=10, period=50))
    assert answer["outcome"] == "scheduled"
    # A second try that fails does not prolong it.
    await send(bench, invoice(bench, "invoice.payment_failed", after=GRACE, period=50))
    bench.clock.advance(GRACE)
    await bench.kit.worker.run_once()
    assert await plan_of(bench) == "pro"
    bench.clock.advance(10)
    await bench.kit.worker.run_once()
    assert await plan_of(bench) == "free"
    # It has fallen back; another failure changes nothing, a payment does.
    later = invoice(bench, "invoice.payment_failed", after=10, period=50)
    assert (await send(bench, later))["outcome"] == "stale"
    await send(bench, invoice(bench, "invoice.paid", after=20, period=50))
    assert await plan_of(bench) == "pro"


async def test_a_payment_within_the_grace_ends_it(bench: Planning) -> None:
    await send(bench, invoice(bench, "invoice.paid"))
    await send(bench, invoice(bench, "invoice.payment_failed", after=10, period=500))
    old = await send(bench, invoice(bench, "invoice.paid", after=20, period=400))
    assert old["outcome"] == "applied", "its credits"
    await send(bench, invoice(bench, "invoice.paid", after=30, period=500))
    bench.clock.advance(2 * GRACE)
    await bench.kit.worker.run_once()
    assert await plan_of(bench) == "pro"


async def test_the_payment_of_an_older_invoice_does_not_end_the_grace(bench: Planning) -> None:
    await send(bench, invoice(bench, "invoice.paid"))
    await send(bench, invoice(bench, "invoice.payment_failed", after=10, period=500))
    await send(bench, invoice(bench, "invoice.paid", after=20, period=400))
    bench.clock.advance(2 * GRACE)
    await bench.kit.worker.run_once()
    assert await plan_of(bench) == "free"


async def test_older_events_never_undo_newer_ones(bench: Planning) -> None:
    await send(bench, invoice(bench, "invoice.paid", after=100))
    late = invoice(bench, "invoice.payment_failed", after=50)
    assert (await send(bench, late))["outcome"] == "stale"
    assert await plan_of(bench) == "pro"
    await send(bench, invoice(bench, "invoice.paid", after=90, price="price_max"))
    assert await plan_of(bench) == "pro"


@pytest.mark.parametrize("end", [99, 200])
async def test_a_subscription_that_has_ended_stays_so(bench: Planning, end: int) -> None:
    """The final invoice is often paid after the end; and the end may be told of late."""
    await send(bench, invoice(bench, "invoice.paid", after=100))
    assert (await send(bench, ended(bench, after=end)))["plan"] == "free"
    for kind in ("invoice.paid", "invoice.payment_failed"):
        for after in (95, 150, 300):
            number = f"in_{kind}_{after}"
            answer = await send(bench, invoice(bench, kind, after=after, number=number))
            assert answer.get("reason", "") in ("the subscription has ended", "")
            assert await plan_of(bench) == "free"
    bench.clock.advance(2 * GRACE)
    await bench.kit.worker.run_once()
    assert await plan_of(bench) == "free"
    await send(bench, invoice(bench, "invoice.paid", subscription="sub_2"))
    assert await plan_of(bench) == "pro"


async def test_an_older_payment_that_comes_late_gives_the_plan_for_the_grace(
    bench: Planning,
) -> None:
    await send(bench, invoice(bench, "invoice.payment_failed", after=-50, period=500))
    assert await plan_of(bench) is None
    answer = await send(bench, invoice(bench, "invoice.paid", after=-80, period=400))
    assert (answer["outcome"], answer["plan"]) == ("applied", "pro")
    bench.clock.advance(GRACE - 51)
    await bench.kit.worker.run_once()
    assert await plan_of(bench) == "pro"
    bench.clock.advance(2)
    await bench.kit.worker.run_once()
    assert await plan_of(bench) == "free"


async def test_what_is_bought_within_a_period_does_not_pay_for_it(bench: Planning) -> None:
    await send(bench, invoice(bench, "invoice.paid", period=400))
    failed = invoice(bench, "invoice.payment_failed", after=10, period=500, number="in_failed")
    await send(bench, failed)
    upgrade = invoice(bench, "invoice.paid", after=20, period=550, price="price_max")
    assert (await send(bench, upgrade))["plan"] == "max"
    bench.clock.advance(GRACE + 10)
    await bench.kit.worker.run_once()
    assert await plan_of(bench) == "free"
    await send(bench, invoice(bench, "invoice.paid", after=30, period=500, number="in_failed"))
    assert await plan_of(bench) == "pro"


@pytest.mark.parametrize("period", [500, 600])
async def test_the_period_itself_or_the_next_one_ends_the_grace(
    bench: Planning, period: int
) -> None:
    await send(bench, invoice(bench, "invoice.paid", period=400))
    await send(bench, invoice(bench, "invoice.payment_failed", after=10, period=500))
    await send(bench, invoice(bench, "invoice.paid", after=20, period=period))
    bench.clock.advance(2 * GRACE)
    await bench.kit.worker.run_once()
    assert await plan_of(bench) == "pro"


async def test_the_first_events_of_a_subscription_may_come_at_once(any_bench: Planning) -> None:
    bench = any_bench
    for number in range(12):
        name = f"sub_{number}"
        paid = invoice(bench, "invoice.paid", subscription=name, paid=0)
        end = ended(bench, after=5, subscription=name)
        await asyncio.gather(send(bench, end), send(bench, paid))
        assert await plan_of(bench) == "free", name


async def test_what_was_noted_of_a_subject_is_forgotten_with_it(any_bench: Planning) -> None:
    bench = any_bench
    await send(bench, ended(bench))
    await bench.kit.erase("default", "ann")
    async with bench.database.read() as conn:
        assert not (await conn.execute(sa.select(stripe_notes))).all()


_EVENTS = st.tuples(
    st.sampled_from(["invoice.paid", "invoice.payment_failed", "customer.subscription.deleted"]),
    st.integers(-100, 0),
    st.sampled_from([0, 50, 100, 200]),
    st.sampled_from(["price_pro", "price_max"]),
    st.sampled_from(["in_a", "in_b", "in_c"]),
)
_WEIGHTED = st.lists(_EVENTS, min_size=1, max_size=6)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    history=_WEIGHTED,
    order=st.randoms(use_true_random=False),
    grace=st.sampled_from([0, 50, GRACE]),
)
def test_any_order_ends_as_the_right_one(
    tmp_path_factory: pytest.TempPathFactory, history: list[Any], order: Any, grace: int
) -> None:
    async def play(shuffle: bool) -> list[Any]:
        url = sqlite_url(tmp_path_factory.mktemp("stripe"))
        options = StripeOptions(webhook_secrets=(SECRET,), grace_seconds=grace)
        async with opened(url) as database, planning(database, url, stripe=options) as bench:
            await prepared(bench)
            sent = [
                {**_event(bench, *one), "id": f"evt_{number}"}
                for number, one in enumerate(sorted(history, key=lambda one: one[1]))
            ]
            if shuffle:
                sent = [*sent, *sent]
                order.shuffle(sent)
            for body in sent:
                await send(bench, body)
            plans = [await plan_of(bench)]
            for seconds in (grace // 2, grace):
                bench.clock.advance(seconds)
                await bench.kit.worker.run_once()
                plans.append(await plan_of(bench))
            return plans

    async def run() -> None:
        assert await play(True) == await play(False)

    asyncio.run(run())


def _event(
    bench: Planning, kind: str, after: int, period: int, price: str, number: str
) -> dict[str, Any]:
    if kind == "customer.subscription.deleted":
        return ended(bench, after=after)
    return invoice(bench, kind, after=after, period=period, price=price, number=number)


_NOTES = st.lists(
    st.builds(
        lambda kind, at, period, plan, number: (kind, at, period, plan, f"in_{number}"),
        # Most subscriptions do not end.
        st.sampled_from([*[Kind.PAID, Kind.FAILED] * 4, Kind.ENDED]),
        st.integers(0, 40),
        st.sampled_from([0, 50, 100, 200]),
        st.sampled_from(["pro", "max"]),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=8,
)


@given(told=_NOTES, order=st.randoms(use_true_random=False), grace=st.sampled_from([0, 20, 60]))
def test_the_verdicts_of_any_order_come_to_the_same(
    told: list[Any], order: Any, grace: int
) -> None:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    notices = [
        Notice(f"evt_{number}", kind, start + timedelta(seconds=at), kind, "ann", "sub",
               plan=plan, invoice=invoice_id, period_start=period, period_end=period + 100)
        for number, (kind, at, period, plan, invoice_id) in enumerate(told)
    ]  # fmt: skip

    def play(sent: list[Notice]) -> tuple[str | None, Subscription | None]:
        known: Subscription | None = None
        plan: str | None = None
        noted: list[Note] = []
        now = start + timedelta(seconds=41)
        for notice in sent:
            verdict = judge(known, noted, notice, notice.plan, timedelta(seconds=grace), now)
            noted.append(note_of(notice, notice.plan))
            known = verdict.after
            if verdict.step is Step.PAY:
                plan = known.plan
            elif verdict.step is Step.FALL_BACK:
                plan = "free"
        return plan, known

    right = play(sorted(notices, key=lambda one: one.created_at))
    order.shuffle(notices)
    assert play(notices) == right
