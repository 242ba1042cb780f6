"""The SDK has the whole API: every operation of the OpenAPI document, called for real."""

import inspect
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from meterline_sdk import (
    BannedError,
    ConflictError,
    ForbiddenError,
    Meterline,
    NotFoundError,
    UnauthorizedError,
    UsageLimitError,
    event,
)
from meterline_sdk._sync._resource import Resource
from tests.support.server import MeterlineServer, eventually

DAY = datetime(2026, 3, 1, tzinfo=UTC)
LEFT_OUT = {
    ("GET", "/healthz"): "for the machines that keep the server running",
    ("GET", "/readyz"): "for the machines that keep the server running",
    ("GET", "/metrics"): "for Prometheus",
    ("GET", "/openapi.json"): "the document itself",
    ("GET", "/docs"): "a page for people",
    ("GET", "/api/v1/meters/{id_or_slug}/query"): "the same as the POST, with fewer filters",
    ("POST", "/api/v1/stripe/webhook"): "Stripe calls it",
}


@pytest.fixture
def meterline(server: MeterlineServer) -> Iterator[Meterline]:
    with Meterline(server.url) as client:
        yield client


class Noted(Exception):  # noqa: N818 - it is no error
    """Stands for the answer to a request that was only noted."""


def calls(client: Meterline) -> Iterator[Callable[..., Any]]:
    yield client.require
    for resource in vars(client).values():
        if isinstance(resource, Resource):
            for name, method in inspect.getmembers(resource, inspect.ismethod):
                if not name.startswith("_"):
                    yield method


def dummy(parameter: inspect.Parameter) -> Any:
    kind = str(parameter.annotation)
    if "Sequence" in kind:
        return [{}]
    if "Mapping" in kind:
        return {}
    return 1 if "int" in kind else "x"


def test_every_operation_has_its_method(server: MeterlineServer) -> None:
    with server.client() as http:
        paths = http.get("/openapi.json").json()["paths"]
    offered = {(method.upper(), path) for path, of in paths.items() for method in of}
    patterns = {one: re.compile(re.sub(r"\{\w+\}", "[^/]+", one[1]) + "$") for one in offered}
    seen: set[tuple[str, str]] = set()

    def note(request: httpx2.Request) -> httpx2.Response:
        for one in sorted(offered, key=lambda one: one[1].count("{")):
            if one[0] == request.method and patterns[one].match(request.url.path):
                seen.add(one)
                raise Noted
        raise AssertionError(f"the server has no {request.method} {request.url.path}")

    transport = httpx2.Client(transport=httpx2.MockTransport(note))
    with Meterline("http://test", http_client=transport) as client:
        for method in calls(client):
            parameters = inspect.signature(method).parameters.values()
            needed = [
                dummy(one)
                for one in parameters
                if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD
            ]
            named = {
                one.name: dummy(one)
                for one in parameters
                if one.default is one.empty and one.kind is one.KEYWORD_ONLY
            }
            optional = [one for one in parameters if one.default is None]
            for arguments in ([], ["x"], ["x", "x"]):
                extra = arguments if len(optional) >= len(arguments) else []
                positional = [one for one in optional if one.kind is one.POSITIONAL_OR_KEYWORD]
                with pytest.raises(Noted):
                    method(*needed, *extra[: len(positional)], **named)
    assert offered - seen == set(LEFT_OUT)


def test_plans_and_checks(meterline: Meterline) -> None:
    made = meterline.plans.create(
        "sdk-pro",
        name="Pro",
        monthly_token_limit=1_000,
        monthly_cost_limit_usd=Decimal("2.50"),
        requests_per_minute=100,
        credit_allocation={"interval": "MONTH", "amount": 10},
        stripe_price_ids=["price_sdk"],
    )
    assert (made.monthly_token_limit, made.monthly_cost_limit_usd) == (1_000, Decimal("2.50"))
    assert made.credit_allocation is not None and made.credit_allocation.amount == 10
    assert meterline.plans.get("sdk-pro").created_at == made.created_at
    changed = meterline.plans.update("sdk-pro", requests_per_minute=None, tokens_per_minute=5_000)
    assert (changed.requests_per_minute, changed.tokens_per_minute) == (None, 5_000)
    replaced = meterline.plans.replace("sdk-pro", name="Pro", monthly_token_limit=1_000)
    assert replaced.tokens_per_minute is None
    given = meterline.plans.assign("sdk-ann", "sdk-pro", overrides={"requests_per_minute": 3})
    assert given.plan is not None and given.plan.key == "sdk-pro"
    assert (given.limits.requests_per_minute, given.limits.monthly_token_limit) == (3, 1_000)
    assert meterline.plans.of("sdk-ann").overrides == {"requestsPerMinute": 3}
    assert list(meterline.plans.subjects("sdk-pro")) == ["sdk-ann"]
    assert "sdk-pro" in [one.key for one in meterline.every(meterline.plans.list, limit=1)]
    decision = meterline.check("sdk-ann", model="gpt-4o", tokens=400, hold_seconds=60)
    assert decision.allowed and decision.check_id and decision.plan == "sdk-pro"
    assert {one.limit_type for one in decision.limits} == {"monthlyTokenLimit", "requestsPerMinute"}
    ((hold),) = decision.holds
    assert (hold.feature_key, hold.amount) == ("meterline_tokens", Decimal(400))
    assert meterline.check("sdk-ann", dry_run=True).limits[0].current == 400
    refused = meterline.check("sdk-ann", tokens=601)
    assert (refused.allowed, refused.limit_type) == (False, "monthlyTokenLimit")
    assert (refused.limit, refused.current) == (Decimal(1_000), Decimal(400))
    meterline.holds.release("sdk-ann", hold.feature_key, hold.id)
    banned = meterline.plans.ban("sdk-ann", "fraud")
    assert banned.banned and banned.ban is not None and banned.ban.reason == "fraud"
    assert meterline.check("sdk-ann").limit_type == "banned"
    assert not meterline.plans.unban("sdk-ann").banned
    changes = list(meterline.every(meterline.plans.history, "sdk-ann", limit=1))
    assert len(changes) >= 3 and changes[0].time >= changes[-1].time
    totals = meterline.plans.summary("sdk-ann", wait=True)
    assert (totals.total.tokens, totals.current_month.requests) == (0, 0)
    assert meterline.plans.summary().total.cost_usd >= 0
    with pytest.raises(ConflictError):
        meterline.plans.delete("sdk-pro")
    meterline.plans.remove("sdk-ann")
    meterline.plans.delete("sdk-pro")
    assert list(meterline.stripe.events()) == []


def test_credits_holds_reservations_and_transactions(meterline: Meterline) -> None:
    given = meterline.credits.add("sdk-bob", Decimal("100.5"), reason="gift", idempotency_key="g1")
    assert given == meterline.credits.add("sdk-bob", Decimal("100.5"), reason="gift",
                                          idempotency_key="g1")  # fmt: skip
    assert (given.balance, given.amount) == (Decimal("100.5"), Decimal("100.5"))
    hold = meterline.holds.open("sdk-bob", "credits", 10, id="sdk-h1", ttl_seconds=60)
    assert (hold.status, hold.amount) == ("open", Decimal(10))
    assert meterline.holds.get("sdk-bob", "credits", "sdk-h1").created_at == hold.created_at
    confirmed = meterline.holds.confirm("sdk-bob", "credits", "sdk-h1", 4)
    assert (confirmed.status, confirmed.confirmed_amount) == ("confirmed", Decimal(4))
    assert confirmed.released_amount == 6
    with pytest.raises(UsageLimitError) as caught:
        meterline.holds.open("sdk-bob", "credits", 1_000)
    assert caught.value.limit_type == "credits"
    assert (caught.value.limit, caught.value.current) == (Decimal("100.5"), Decimal(4))
    reserved = meterline.reservations.create("sdk-bob", 20, description="a job")
    one = reserved.transaction_id
    assert (reserved.account_id, reserved.status) == ("sdk-bob", "open")
    assert meterline.reservations.get(one).amount == 20
    assert meterline.reservations.confirm(one, Decimal("1.5")).confirmed_amount == Decimal("1.5")
    other = meterline.reservations.create("sdk-bob", 1)
    assert meterline.reservations.release(other.transaction_id).status == "released"
    listed = meterline.every(meterline.reservations.list, account_id="sdk-bob", limit=1)
    assert len(list(listed)) == 2
    rate = meterline.credit_rates.create("sdk-model", 10, 20, cached_rate=5)
    assert rate == meterline.credit_rates.get("sdk-model")
    assert meterline.credit_rates.replace("sdk-model", 1_000_000, 2_000_000).cached_rate is not None
    assert "sdk-model" in [one.model for one in meterline.every(meterline.credit_rates.list)]
    started = meterline.transactions.start(
        "sdk-bob", "sdk-model", input_tokens=5, output_tokens=10, feature_identifier="chat"
    )
    assert started.continue_
    done = meterline.transactions.complete(started.transaction_id, input_tokens=3, output_tokens=4)
    assert (done.credits_used, done.balance_adjustment) == (Decimal(11), Decimal(14))
    shown = meterline.transactions.get(started.transaction_id)
    assert (shown.status, shown.user_id) == ("completed", "sdk-bob")
    assert shown.finalized_tokens is not None and shown.finalized_tokens.output_tokens == 4
    assert len(meterline.transactions.list(user_id="sdk-bob", status="completed")) == 1
    balance = meterline.credits.get("sdk-bob")
    entries = list(meterline.every(meterline.credits.history, "sdk-bob", limit=2))
    assert sum(one.amount for one in entries) == balance.balance == Decimal("84.0")
    assert len(meterline.holds.list("sdk-bob", "credits", status="confirmed")) == 3
    meterline.credit_rates.delete("sdk-model")


def test_a_banned_subject_is_told_so_by_credits(meterline: Meterline) -> None:
    meterline.credits.add("sdk-banned", 100)
    reserved = meterline.reservations.create("sdk-banned", 10)
    meterline.plans.ban("sdk-banned", "fraud")
    for attempt in (
        lambda: meterline.reservations.create("sdk-banned", 1),
        lambda: meterline.transactions.start("sdk-banned", "gpt-4o"),
    ):
        with pytest.raises(BannedError) as caught:
            attempt()
        assert caught.value.reason == "fraud"
        assert (caught.value.said("outcome"), caught.value.said("limitType")) == ("banned",) * 2
    assert meterline.reservations.confirm(reserved.transaction_id).status == "confirmed"
    meterline.plans.unban("sdk-banned")
    assert meterline.transactions.start("sdk-banned", "gpt-4o").continue_


def test_records_and_prices(meterline: Meterline) -> None:
    made = meterline.usage.record(
        "gpt-4o",
        account_id="sdk-cat",
        input_tokens=1_000,
        cached_tokens=400,
        output_tokens=50,
        id="sdk-r1",
        metadata={"job": "7"},
    )
    assert (made.cost_usd, made.priced) == (Decimal("0.0025"), "catalogue")
    assert made.price is not None and made.price.rates["inputTokens"].price == Decimal("2.5")
    batch = meterline.usage.record_many(
        [
            {"model_id": "gpt-4o", "account_id": "sdk-cat", "input_tokens": number}
            for number in range(1, 4)
        ]
    )
    assert [one.input_tokens for one in batch] == [1, 2, 3]
    found = list(meterline.every(meterline.usage.list, account_id="sdk-cat", wait=True, limit=2))
    assert len(found) == 4
    assert made in found
    summary = meterline.usage.summary(account_id="sdk-cat", wait=True)
    assert (summary.total_input_tokens, summary.total_requests) == (1_006, 4)
    assert summary.total_cost_usd == Decimal("0.002515")
    assert summary.by_model[0].model_id == "gpt-4o"
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o",
        "usage": {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42},
    }
    tracked = meterline.usage.track("sdk-bot", response=answer, tags=["beta"], conversation_id="c")
    assert (tracked.total_tokens, tracked.tags, tracked.key) == (42, ["beta"], "sdk-bot")
    (by_tag,) = meterline.usage.track_summary("tag", key="sdk-bot", wait=True).items
    assert (by_tag.tag, by_tag.messages, by_tag.total_tokens) == ("beta", 1, 42)
    cost = meterline.prices.cost("gpt-4o", input_tokens=1_000_000)
    assert (cost.cost_usd, cost.billed) == (Decimal("2.5"), {"inputTokens": Decimal(10**6)})
    assert meterline.prices.cost("sdk-unknown", input_tokens=1).cost_usd is None
    assert meterline.prices.models(provider="openai", model_id="gpt-4o")[0].rates
    own = meterline.prices.create("sdk-house-*", {"inputTokens": Decimal("0.60")}, note="c7")
    assert meterline.prices.get(own.id).rates["inputTokens"].price == Decimal("0.60")
    meterline.prices.replace(own.id, "sdk-house-*", {"inputTokens": "0.70"})
    assert meterline.prices.list()[0].rates["inputTokens"].price == Decimal("0.70")
    meterline.prices.delete(own.id)
    with pytest.raises(NotFoundError):
        meterline.prices.get(own.id)


def test_meters_subjects_and_the_portal(meterline: Meterline, server: MeterlineServer) -> None:
    meterline.meters.create("sdk_api", event_type="sdk.api", aggregation="COUNT",
                            group_by={"model": "$.model"})  # fmt: skip
    renamed = meterline.meters.update("sdk_api", name="API", group_by={"model": "$.model"})
    assert renamed.name == "API"
    events = [event("sdk.api", f"sdk-s{n}", {"model": "m"}, time=DAY) for n in range(3)]
    meterline.events.ingest(events)
    eventually(lambda: len(meterline.meters.subjects("sdk_api")) == 3, "the events are counted")
    assert list(meterline.meters.group_values("sdk_api", "model")) == ["m"]
    ids = {one["id"] for one in events}

    def listed() -> bool:
        found = meterline.every(meterline.events.list, type="sdk.api", limit=1)
        return {one.event.id for one in found} == ids

    eventually(listed, "the events are listed")  # a moment after they are counted
    for number in range(3):
        meterline.subjects.upsert(f"sdk-s{number}", metadata={"n": number})
    keys = [one.key for one in meterline.every(meterline.subjects.list, limit=2)]
    assert {"sdk-s0", "sdk-s1", "sdk-s2"} <= set(keys)
    token = meterline.portal.create_token("sdk-s0", allowed_meter_slugs=["sdk_api"])
    meterline.features.create("sdk_api_feature", meter_slug="sdk_api")
    meterline.entitlements.create("sdk-s0", "sdk_api_feature", issue_after_reset=5,
                                  usage_period={"interval": "MONTH"})  # fmt: skip
    with Meterline(server.url, token.token) as browser:
        assert browser.portal.query("sdk_api").data[0].value == 1
        (shown,) = browser.portal.entitlements(wait=True)
        assert shown.value is not None and shown.value.has_access
        assert browser.portal.value("sdk_api_feature").balance == 5


def test_entitlements(meterline: Meterline) -> None:
    meterline.meters.create("sdk_ent", event_type="sdk.ent", aggregation="COUNT")
    feature = meterline.features.create("sdk_ent", "Things", meter_slug="sdk_ent")
    assert meterline.features.get(feature.id) == feature
    assert "sdk_ent" in [one.key for one in meterline.every(meterline.features.list, limit=1)]
    start = datetime.now(UTC) - timedelta(days=2)
    period = {"interval": "MONTH", "anchor": start}
    made = meterline.entitlements.create(
        "sdk-dan", "sdk_ent", usage_period=period, measure_usage_from=start
    )
    assert made.usage_period is not None and made.usage_period.interval == "MONTH"
    assert made.usage_period.anchor is not None and made.current_usage_period is not None
    assert meterline.entitlements.get("sdk-dan", "sdk_ent") == made
    assert meterline.entitlements.get_by_id(made.id).subject_key == "sdk-dan"
    assert [one.id for one in meterline.entitlements.list("sdk-dan")] == [made.id]
    assert made.id in [one.id for one in meterline.every(meterline.entitlements.list, limit=1)]
    grant = meterline.entitlements.grant("sdk-dan", "sdk_ent", 10, effective_at=start,
                                         max_rollover_amount=3)  # fmt: skip
    assert grant.max_rollover_amount == 3
    assert meterline.entitlements.grants("sdk-dan", "sdk_ent")[0].id == grant.id
    assert grant.id in [one.id for one in meterline.entitlements.grants("sdk-dan")]
    meterline.events.ingest([event("sdk.ent", "sdk-dan", time=start + timedelta(hours=1))])
    value = meterline.entitlements.value("sdk-dan", "sdk_ent", wait=True)
    assert (value.balance, value.usage, value.grant_balances) == (
        Decimal(9), Decimal(1), {grant.id: Decimal(9)},
    )  # fmt: skip
    past = meterline.entitlements.value("sdk-dan", "sdk_ent", time=start + timedelta(minutes=1))
    assert past.balance == 10
    history = meterline.entitlements.history("sdk-dan", "sdk_ent", window_size="HOUR")
    assert sum(one.usage or 0 for one in history.windowed_history) == 1
    assert history.windowed_history[0].balance_at_start == 10
    meterline.entitlements.void_grant(grant.id)
    meterline.entitlements.reset("sdk-dan", "sdk_ent", retain_anchor=True)
    again = meterline.entitlements.override("sdk-dan", "sdk_ent", issue_after_reset=7,
                                            usage_period=period)  # fmt: skip
    assert again.issue_after_reset == 7
    meterline.entitlements.delete("sdk-dan", "sdk_ent")
    meterline.features.delete("sdk_ent")


def test_notifications_and_keys(tmp_path: Path) -> None:
    # With its first key a server asks everybody for one.
    local = {"METERLINE_NOTIFICATIONS__ALLOW_PRIVATE_TARGETS": "true"}
    with MeterlineServer(tmp_path / "data", environment=local) as server:
        with Meterline(server.url) as opened:
            notifications_work(opened)
            admin = opened.keys.create(["admin"], name="admin")
            with pytest.raises(UnauthorizedError):
                opened.keys.list()
        with Meterline(server.url, admin.key) as meterline:
            reader = meterline.keys.create(["read"])
            assert {one.id for one in meterline.keys.list()} == {admin.id, reader.id}
            with Meterline(server.url, reader.key) as weak, pytest.raises(ForbiddenError):
                weak.keys.list()
            assert meterline.track_event("sdk.key", "sdk-s0")
            assert meterline.buffer.flush()
            meterline.keys.delete(reader.id)


def notifications_work(meterline: Meterline) -> None:
    told = meterline.notifications
    channel = told.create_channel("hook", "http://127.0.0.1:9/none", disabled=True)
    assert channel.signing_secret
    assert told.get_channel(channel.id).name == "hook"
    assert told.replace_channel(channel.id, "hook two", "http://127.0.0.1:9/").name == "hook two"
    terms = {"thresholds": [{"type": "PERCENT", "value": 80}]}
    rule = told.create_rule("nearly", "entitlements.balance.threshold", [channel.id], **terms)
    assert rule.thresholds == [{"type": "PERCENT", "value": 80}]
    assert told.get_rule(rule.id).id == rule.id
    again = told.replace_rule(rule.id, "near", rule.type, [channel.id], **terms)
    assert again.name == "near"
    assert rule.id in [one.id for one in told.list_rules()]
    for number in range(3):
        told.create_channel(f"more {number}", "http://127.0.0.1:9/none", disabled=True)
    channels = list(meterline.every(told.list_channels, page_size=2, include_disabled=True))
    assert len(channels) >= 4
    sent = told.test_rule(rule.id)
    assert told.get_event(sent.id).type == sent.type
    assert sent.id in [one.id for one in told.list_events(rule=rule.id)]
    told.resend_event(sent.id)
    told.delete_rule(rule.id)
    for one in channels:
        told.delete_channel(one.id)
