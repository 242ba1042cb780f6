"""Stripe's events: signed, taken once, in whatever order they come."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import stripe

from entitlements.plans.options import StripeOptions
from meterline.db.engine import Database
from meterline.kernel.clock import system_clock
from tests.support.api import assert_problem
from tests.support.database import opened, sqlite_url
from tests.support.paying import ended, event, invoice, plan_of, post, prepared, send
from tests.support.planning import SECRET, Planning, planning

GRACE = 3_600


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


_OPTIONS = StripeOptions(webhook_secrets=(SECRET, "whsec_next"), grace_seconds=GRACE)


@pytest.mark.parametrize("kind", ["invoice.paid", "invoice.payment_succeeded"])
@pytest.mark.parametrize("old", [False, True])
async def test_a_payment_gives_the_plan_of_its_price(bench: Planning, kind: str, old: bool) -> None:
    answer = await send(bench, invoice(bench, kind, old=old))
    assert (answer["outcome"], answer["plan"]) == ("applied", "pro")
    assert await plan_of(bench) == "pro"
    assert await bench.credits() == 5
    history = await bench.call("GET", "/subjects/ann/plan/history")
    assert history[0]["source"] == "stripe" and history[0]["data"]["event"].startswith("evt_")


async def test_the_same_event_and_the_same_payment_count_once(any_bench: Planning) -> None:
    bench = any_bench
    first = invoice(bench, "invoice.paid", number="in_a")
    answers = await asyncio.gather(*(send(bench, first) for _ in range(8)))
    assert sorted(one["outcome"] for one in answers) == ["applied"] + ["duplicate"] * 7
    await send(bench, invoice(bench, "invoice.payment_succeeded", number="in_a"))
    assert await bench.credits() == 5
    await send(bench, invoice(bench, "invoice.paid", number="in_b", after=60))
    assert await bench.credits() == 10
    await send(bench, invoice(bench, "invoice.paid", number="in_c", after=60, paid=0))
    assert await bench.credits() == 10
    await send(bench, invoice(bench, "invoice.paid", number="in_d", after=60, credits="2.5"))
    bench.clock.advance(1)
    assert str(await bench.credits()) == "12.5"


async def test_the_end_of_a_subscription_is_the_free_plan(bench: Planning) -> None:
    await send(bench, invoice(bench, "invoice.paid"))
    assert (await send(bench, ended(bench, after=10)))["plan"] == "free"
    assert await plan_of(bench) == "free"


async def test_what_is_still_paid_for_is_kept(bench: Planning) -> None:
    await send(bench, invoice(bench, "invoice.paid"))
    await send(bench, invoice(bench, "invoice.paid", price="price_max", subscription="sub_2"))
    assert await plan_of(bench) == "max"
    await send(bench, ended(bench, after=10))
    assert await plan_of(bench) == "max"
    await send(bench, ended(bench, after=10, subscription="sub_2"))
    assert await plan_of(bench) == "free"


async def test_metadata_may_name_the_plan_and_the_one_after_it(bench: Planning) -> None:
    await bench.plan("basic")
    named: dict[str, Any] = {"parmot_plan_name": "max", "parmot_fallback_plan_name": "basic"}
    await send(bench, invoice(bench, "invoice.paid", price="price_unknown", **named))
    assert await plan_of(bench) == "max"
    await send(bench, ended(bench, after=5))
    assert await plan_of(bench) == "basic"


async def test_what_is_of_no_use_is_kept_with_its_reason(bench: Planning) -> None:
    sent = {
        "no plan has the price price_x": invoice(bench, "invoice.paid", price="price_x"),
        "there is no plan gone": invoice(bench, "invoice.paid", price="price_x", plan="gone"),
        "no end_user_id in the subscription's metadata": invoice(
            bench, "invoice.paid", subject=None
        ),
        "events of the type charge.refunded are not used": event(bench, "charge.refunded", {}, 0),
    }
    for reason, body in sent.items():
        answer = await send(bench, body)
        assert (answer["outcome"], answer["reason"]) == ("ignored", reason)
    found = await bench.call("GET", "/stripe/events?outcome=ignored")
    assert {one["reason"] for one in found} == set(sent)
    assert (await send(bench, next(iter(sent.values()))))["outcome"] == "duplicate"
    assert await plan_of(bench) is None


async def test_strange_events_do_no_harm(any_bench: Planning) -> None:
    bench = any_bench
    strange: list[Any] = [
        {"id": "evt_s1", "type": "invoice.paid", "created": 1, "data": {"object": None}},
        {"id": "evt_s2", "type": "invoice.paid", "created": 1, "data": {"object": {"lines": 5}}},
        {"id": "evt_s3", "type": "invoice.paid", "created": 1, "data": {"object": {
            "parent": {"subscription_details": {"metadata": {"end_user_id": "x\u0000"}}}}}},
        {"id": "evt_s4", "type": "invoice.paid", "created": 1, "data": {"object": {
            "lines": {"data": [None, {"price": 7, "metadata": {"end_user_id": "ann"}}]}}}},
    ]  # fmt: skip
    for body in strange:
        assert (await send(bench, body))["outcome"] == "ignored"
    for text in ("[]", "{}", '{"id": "evt_t", "type": "x", "created": "now"}', "nonsense"):
        assert_problem(await post(bench, text), 400)


async def test_a_signature_that_is_not_good_is_refused(bench: Planning) -> None:
    body = json.dumps(invoice(bench, "invoice.paid"))
    old = int((system_clock() - timedelta(minutes=10)).timestamp())
    signed = stripe.WebhookSignature.generate_signature_header(body, SECRET)
    late = stripe.WebhookSignature.generate_signature_header(body, SECRET, timestamp=old)
    for header in ("", "t=1,v1=00", "nonsense", late, "t=1,v1=\u00e9", f"t={'9' * 5000},v1=00"):
        assert_problem(await post(bench, body, header=header), 400)
    assert_problem(await post(bench, body.replace("pro", "max"), header=signed), 400)
    assert_problem(await post(bench, body, secret="whsec_other"), 400)
    assert (await post(bench, body, secret="whsec_next")).status_code == 200


async def test_without_a_secret_the_webhook_is_off(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    async with opened(url) as database, planning(database, url, stripe=StripeOptions()) as bench:
        assert_problem(await post(bench, invoice(bench, "invoice.paid")), 404)


async def test_old_ids_are_forgotten_after_a_long_time(bench: Planning) -> None:
    body = invoice(bench, "invoice.paid")
    await send(bench, body)
    bench.clock.advance(399 * 86_400)
    assert await bench.kit.payments.forget() == 0
    bench.clock.advance(2 * 86_400)
    assert await bench.kit.payments.forget() == 1
    assert (await send(bench, body))["outcome"] == "applied"
