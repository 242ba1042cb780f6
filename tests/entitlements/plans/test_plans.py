"""Plans: made, changed, given, taken away; and what follows from them."""

from decimal import Decimal
from typing import Any

from tests.support.api import assert_problem
from tests.support.planning import Planning


async def test_a_plan_is_what_was_said(bench: Planning) -> None:
    body = {
        "key": "pro",
        "name": "Professional",
        "description": "For teams",
        "monthlyTokenLimit": 1_000_000,
        "monthlyCostLimitUsd": "12.345678901234567891",
        "requestsPerMinute": 60,
        "requestsPerHour": 600,
        "requestsPerDay": 6_000,
        "tokensPerMinute": 10_000,
        "creditAllocation": {"interval": "MONTH", "amount": 100, "maxRollover": 20},
        "stripePriceIds": ["price_1", "price_2"],
        "creditsPerPayment": 5,
        "metadata": {"a": "b"},
    }
    made = await bench.call("POST", "/plans", body, 201)
    assert made["monthlyCostLimitUsd"] == Decimal("12.345678901234567891")
    assert made["creditAllocation"] == {
        "interval": "MONTH", "amount": 100, "maxRollover": 20, "priority": 1,
    }  # fmt: skip
    for name in ("name", "description", "monthlyTokenLimit", "requestsPerMinute", "metadata"):
        assert made[name] == body[name]
    assert await bench.call("GET", "/plans/pro") == made
    assert await bench.call("GET", "/plans") == [made]
    await bench.call("POST", "/plans", {"key": "pro"}, 409)
    await bench.call("POST", "/plans", {"key": "other", "stripePriceIds": ["price_2"]}, 409)
    changed = await bench.call("PATCH", "/plans/pro", {"tokensPerMinute": None, "name": "P"})
    assert "tokensPerMinute" not in changed
    assert changed["requestsPerHour"] == 600
    replaced = await bench.call("PUT", "/plans/pro", {"requestsPerDay": 1})
    assert "requestsPerHour" not in replaced
    assert replaced["stripePriceIds"] == []
    await bench.call("DELETE", "/plans/pro", status=204)
    await bench.call("GET", "/plans/pro", status=404)


_REFUSED: list[Any] = [
    {},
    {"key": ""},
    {"key": "x", "monthlyTokenLimit": -1},
    {"key": "x", "monthlyTokenLimit": 1.5},
    {"key": "x", "requestsPerMinute": 10**9},
    {"key": "x", "monthlyCostLimitUsd": "much"},
    {"key": "x", "creditAllocation": {"interval": "MONTH", "amount": 0}},
    {"key": "x", "creditAllocation": {"interval": "DAY", "amount": 1, "maxRollover": 1}},
    {"key": "x", "creditAllocation": {"interval": "PT1S", "amount": 1}},
    {"key": "x", "features": [{"featureKey": "nothing"}]},
    {"key": "x", "features": [{"featureKey": "tokens"}, {"featureKey": "tokens"}]},
    {"key": "x", "features": [{"featureKey": "credits", "type": "metered"}]},
    {"key": "x", "features": [{"featureKey": "tokens", "type": "static"}]},
    {"key": "x", "mistake": 1},
]


async def test_what_cannot_be_a_plan_is_refused(bench: Planning) -> None:
    for body in _REFUSED:
        assert_problem(await bench.send("POST", "/plans", body), 400)


async def test_pages_of_plans_lead_on(bench: Planning) -> None:
    for number in range(5):
        await bench.plan(f"plan{number}")
    keys: list[str] = []
    path = "/plans?limit=2"
    while path:
        response = await bench.send("GET", path)
        keys += [one["key"] for one in response.json()]
        path = response.links["next"]["url"] if response.links else ""
    assert keys == [f"plan{number}" for number in range(5)]


async def test_a_plan_is_given_and_taken_away(bench: Planning) -> None:
    await bench.plan("pro", monthlyTokenLimit=100)
    await bench.call("GET", "/subjects/ann/plan", status=404)
    given = await bench.assign("pro", overrides={"monthlyTokenLimit": 5, "requestsPerDay": 7})
    assert given["plan"]["key"] == "pro"
    assert given["limits"] == {"monthlyTokenLimit": 5, "requestsPerDay": 7}
    kept = await bench.call("PUT", "/subjects/ann/plan", {"reason": "nothing new"})
    assert kept["overrides"] == given["overrides"]
    cleared = await bench.assign("pro", overrides={})
    assert cleared["limits"] == {"monthlyTokenLimit": 100}
    lifted = await bench.assign("pro", overrides={"monthlyTokenLimit": None})
    assert lifted["limits"] == {}
    assert await bench.call("GET", "/plans/pro/subjects") == ["ann"]
    await bench.call("DELETE", "/plans/pro", status=409)
    await bench.call("PUT", "/subjects/ann/plan", {"plan": "nope"}, 404)
    await bench.call("PUT", "/subjects/bob/plan", {}, 404)
    await bench.call("DELETE", "/subjects/ann/plan", status=204)
    await bench.call("DELETE", "/subjects/ann/plan", status=404)
    await bench.call("GET", "/subjects/ann/plan", status=404)
    history = await bench.call("GET", "/subjects/ann/plan/history")
    first = ["plan.assigned", "plan.overridden"]
    assert [one["type"] for one in reversed(history)] == [*first, *first[1:] * 2, "plan.removed"]


async def test_history_is_in_the_order_in_which_things_happened(bench: Planning) -> None:
    """Though all of it happens at one instant of the clock."""
    await bench.plan("pro")
    await bench.plan("free")
    expected = []
    for number in range(5):
        await bench.assign("pro", overrides={"requestsPerDay": number})
        await bench.assign("free", overrides={})
        expected += ["plan.assigned", "plan.overridden"] * 2
    await bench.call("POST", "/subjects/ann/ban")
    found: list[str] = []
    path = "/subjects/ann/plan/history?limit=3"
    while path:
        response = await bench.send("GET", path)
        found += [one["type"] for one in response.json()]
        path = response.links["next"]["url"] if response.links else ""
    assert found == ["user.banned", *reversed(expected)]


async def test_a_changed_plan_changes_what_its_subjects_may_do(bench: Planning) -> None:
    await bench.plan("pro", monthlyTokenLimit=100)
    await bench.assign("pro")
    await bench.use(50)
    await bench.check()
    await bench.call("PATCH", "/plans/pro", {"monthlyTokenLimit": 50})
    assert (await bench.check(402))["limitType"] == "monthlyTokenLimit"
    await bench.call("PATCH", "/plans/pro", {"monthlyTokenLimit": 51})
    await bench.check()


async def test_a_plan_entitles_to_features(bench: Planning) -> None:
    await bench.call("POST", "/features", {"key": "search"}, 201)
    await bench.call("POST", "/features", {"key": "theme"}, 201)
    features = [
        {"featureKey": "search"},
        {"featureKey": "theme", "type": "static", "config": '{"dark": true}'},
        {"featureKey": "tokens", "type": "metered", "amount": 10},
    ]
    await bench.plan("pro", features=features)
    await bench.plan("free")
    for subject in ("ann", "bob"):
        await bench.assign("pro", subject)
        await bench.check(subject=subject, feature="search")
        value = await bench.call("GET", f"/subjects/{subject}/entitlements/theme/value")
        assert value == {"hasAccess": True, "config": '{"dark": true}'}
        assert (await bench.check(subject=subject, feature="tokens"))["allowed"]
    # Existing subjects follow a change of the plan, a batch at a time.
    await bench.call("PATCH", "/plans/pro", {"features": features[1:]})
    while await bench.kit.worker.run_once():
        pass
    for subject in ("ann", "bob"):
        assert (await bench.check(403, subject, feature="search"))["limitType"] == "search"
        await bench.check(subject=subject, feature="theme")
    await bench.assign("free")
    await bench.check(403, feature="theme")
    await bench.check(subject="bob", feature="theme")


async def test_what_was_given_by_hand_is_left_alone(bench: Planning) -> None:
    await bench.call("POST", "/features", {"key": "search"}, 201)
    body = {"type": "boolean", "featureKey": "search"}
    made = await bench.call("POST", "/subjects/ann/entitlements", body, 201)
    await bench.plan("pro", features=[{"featureKey": "search"}])
    await bench.assign("pro")
    await bench.call("DELETE", "/subjects/ann/plan", status=204)
    found = await bench.call("GET", "/subjects/ann/entitlements/search")
    assert found["id"] == made["id"]


async def test_a_metered_feature_keeps_its_usage_when_the_plan_changes(bench: Planning) -> None:
    await bench.call("POST", "/features", {"key": "calls", "meterSlug": "tokens"}, 201)
    feature = {"featureKey": "calls", "type": "metered", "amount": 10}
    await bench.plan("pro", features=[feature])
    await bench.assign("pro")
    bench.holding.meters.used.append(_used(bench, 8))
    await bench.call("PATCH", "/plans/pro", {"features": [{**feature, "amount": 8}]})
    await bench.kit.worker.run_once()
    refused = await bench.check(402, feature="calls")
    assert (refused["limitType"], refused["limit"], refused["current"]) == ("calls", 8, 8)


async def test_a_ban_refuses_all_checks_until_it_is_lifted(bench: Planning) -> None:
    await bench.call("POST", "/subjects/ann/ban", {"reason": "abuse"})
    assert "abuse" in (await bench.check(403))["detail"]
    await bench.call("POST", "/subjects/ann/ban", {"reason": "more abuse"})
    shown = await bench.call("GET", "/subjects/ann/plan")
    assert shown["banned"] and shown["ban"]["reason"] == "more abuse"
    await bench.call("POST", "/subjects/ann/unban", {"reason": "sorry"})
    await bench.call("POST", "/subjects/ann/unban")
    await bench.check()
    found = await bench.call("GET", "/subjects/ann/plan/history")
    assert [one["type"] for one in found] == ["user.unbanned", "user.banned", "user.banned"]


async def test_an_erased_subject_leaves_nothing(bench: Planning) -> None:
    credits = {"interval": "MONTH", "amount": 10}
    await bench.plan("pro", requestsPerMinute=1, monthlyTokenLimit=1, creditAllocation=credits)
    await bench.assign("pro", "a/b c")
    await bench.call("POST", "/features", {"key": "search"}, 201)
    by_hand = {"type": "boolean", "featureKey": "search"}
    await bench.call("POST", "/subjects/a%2Fb%20c/entitlements", by_hand, 201)
    await bench.check(subject="a/b c")
    await bench.call("POST", "/subjects/a%2Fb%20c/ban")
    await bench.kit.erase("default", "a/b c")
    await bench.check(subject="a/b c")
    assert await bench.call("GET", "/subjects/a%2Fb%20c/plan/history") == []
    assert await bench.call("GET", "/subjects/a%2Fb%20c/entitlements") == []
    assert await bench.call("GET", "/grants") == []
    await bench.check(402, subject="a/b c", estimate={"credits": 1})
    await bench.assign("pro", "a/b c")
    assert await bench.credits("a%2Fb%20c") == 10


async def test_summaries_add_up_what_was_used(bench: Planning) -> None:
    await bench.plan("pro")
    await bench.assign("pro")
    bench.clock.now = bench.clock.now.replace(month=2)
    await bench.use(10, "0.5")
    bench.clock.now = bench.clock.now.replace(month=3)
    await bench.use(5, "0.25", model="o3")
    await bench.use(7, 0, model="mine", priced="unpriced")
    await bench.use(100, 1, subject="bob")
    found = await bench.call("GET", "/subjects/ann/usage-summary")
    assert (found["total"]["tokens"], found["total"]["costUsd"]) == (22, Decimal("0.75"))
    assert (found["total"]["requests"], found["total"]["unpricedRequests"]) == (3, 1)
    assert found["currentMonth"]["tokens"] == 12
    models = {one["model"]: one["tokens"] for one in found["currentMonth"]["byModel"]}
    assert models == {"o3": 5, "mine": 7}
    everyone = await bench.call("GET", "/usage-summary")
    assert everyone["total"]["tokens"] == 122


def _used(bench: Planning, amount: int) -> Any:
    from datetime import timedelta

    from tests.entitlements.balance.usage import Event
    from tests.support.entitlements import Used

    event = Event(bench.clock() - timedelta(milliseconds=1), Decimal(amount))
    return Used("default", "tokens", "ann", event, {})
