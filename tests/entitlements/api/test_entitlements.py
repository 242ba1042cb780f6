"""Entitlements over HTTP."""

import asyncio
from typing import Any

import pytest

from tests.support.entitlements import Bench

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
LIST = "/subjects/alice/entitlements"


async def test_a_metered_entitlement(bench: Bench) -> None:
    feature = await bench.feature()
    made = await bench.entitle(issueAfterReset=100, metadata={"a": "b"})
    assert made == {
        "id": made["id"],
        "type": "metered",
        "subjectKey": "alice",
        "featureKey": "tokens",
        "featureId": feature["id"],
        "metadata": {"a": "b"},
        "createdAt": "2026-03-01T12:00:00Z",
        "updatedAt": "2026-03-01T12:00:00Z",
        "activeFrom": "2026-03-01T12:00:00Z",
        "usagePeriod": {
            "interval": "MONTH",
            "intervalISO": "P1M",
            "anchor": "2026-03-01T12:00:00Z",
        },
        "currentUsagePeriod": {"from": "2026-03-01T12:00:00Z", "to": "2026-04-01T12:00:00Z"},
        "isSoftLimit": False,
        "isUnlimited": False,
        "preserveOverageAtReset": False,
        "measureUsageFrom": "2026-03-01T12:00:00Z",
        "lastReset": "2026-03-01T12:00:00Z",
        "issueAfterReset": 100,
        "issueAfterResetPriority": 1,
    }
    for name in (made["id"], made["id"].lower(), feature["id"], "tokens"):
        assert await bench.call("GET", f"{LIST}/{name}") == made
    assert await bench.call("GET", f"/entitlements/{made['id']}") == made
    assert await bench.call("GET", LIST) == await bench.call("GET", "/entitlements") == [made]


async def test_a_static_and_a_boolean_entitlement(bench: Bench) -> None:
    await bench.feature("limits", meterSlug=None)
    await bench.feature("sso", meterSlug=None)
    config = '{"rpm": 12345678901234567890.5}'
    static = await bench.entitle(type="static", featureKey="limits", config=config)
    assert static["config"] == config
    assert not [name for name in static if "sage" in name or "eset" in name or "imit" in name]
    yes = await bench.entitle(
        type="boolean", featureKey="sso", usagePeriod={"interval": "P2W"}, isSoftLimit=False
    )
    assert yes["usagePeriod"]["interval"] == "P2W"
    assert yes["currentUsagePeriod"]["to"] == "2026-03-15T12:00:00Z"
    assert await bench.value(ref="limits") == {"hasAccess": True, "config": config}
    assert await bench.value(ref="sso") == {"hasAccess": True}


async def test_one_entitlement_for_a_subject_and_feature(bench: Bench) -> None:
    await bench.feature()
    first = await bench.entitle()
    problem = await bench.entitle(status=409)
    assert problem["extensions"] == {"conflictingEntityId": first["id"]}
    assert first["id"] in problem["detail"]
    await bench.entitle("bob")


async def test_of_two_creates_at_once_one_wins(bench: Bench) -> None:
    await bench.feature("sso", meterSlug=None)
    body = {"type": "boolean", "featureKey": "sso"}
    calls = (bench.http.post(f"/api/v1{LIST}", json=body) for _ in range(5))
    answers = await asyncio.gather(*calls)
    assert sorted(one.status_code for one in answers) == [201, 409, 409, 409, 409]
    winner = next(one.json()["id"] for one in answers if one.status_code == 201)
    losers = [one.json()["extensions"] for one in answers if one.status_code == 409]
    assert losers == [{"conflictingEntityId": winner}] * 4


async def test_measuring_from_the_start_of_the_current_period(bench: Bench) -> None:
    await bench.feature()
    made = await bench.entitle(
        usagePeriod={"interval": "WEEK", "anchor": "2026-02-02T00:00:00Z"},
        measureUsageFrom="CURRENT_PERIOD_START",
    )
    assert made["measureUsageFrom"] == made["lastReset"] == "2026-02-23T00:00:00Z"
    assert made["currentUsagePeriod"] == {
        "from": "2026-02-23T00:00:00Z",
        "to": "2026-03-02T00:00:00Z",
    }
    bench.use(5, "2026-02-22T23:59:59.999Z")
    bench.use(7, "2026-02-23T00:00:00Z")
    assert (await bench.value())["usage"] == 7


async def test_a_period_of_a_time_zone(bench: Bench) -> None:
    await bench.feature()
    made = await bench.entitle(
        usagePeriod={
            "interval": "MONTH",
            "anchor": "2026-02-28T23:00:00Z",
            "timeZone": "Europe/Berlin",
        },
    )
    assert made["usagePeriod"]["timeZone"] == "Europe/Berlin"
    assert made["currentUsagePeriod"]["to"] == "2026-03-31T22:00:00Z"


async def test_instants_are_kept_to_the_millisecond(bench: Bench) -> None:
    bench.at("2026-03-01T12:00:00.123456Z")
    await bench.feature()
    made = await bench.entitle(
        usagePeriod={"interval": "DAY", "anchor": "2026-01-01T00:00:00.9999Z"}
    )
    assert made["measureUsageFrom"] == "2026-03-01T12:00:00.123Z"
    assert made["usagePeriod"]["anchor"] == "2026-01-01T00:00:00.999Z"


async def test_what_was_deleted_can_be_made_again(bench: Bench) -> None:
    await bench.feature()
    first = await bench.entitle(issueAfterReset=10)
    bench.at("2026-03-02T00:00:00Z")
    await bench.call("DELETE", f"{LIST}/tokens", status=204)
    assert await bench.value() == {"hasAccess": False}
    assert await bench.value(time="2026-03-01T12:00:00Z") != {"hasAccess": False}
    ended = await bench.call("GET", f"{LIST}/{first['id']}")
    assert ended["activeTo"] == ended["deletedAt"] == "2026-03-02T00:00:00Z"
    await bench.call("GET", f"{LIST}/tokens", status=404)
    await bench.call("DELETE", f"{LIST}/tokens", status=404)
    await bench.call("DELETE", f"{LIST}/{first['id']}", status=404)
    await bench.grant(status=404)
    assert await bench.call("GET", LIST) == []
    assert await bench.call("GET", LIST, params={"includeDeleted": "true"}) == [ended]
    second = await bench.entitle(issueAfterReset=20)
    assert second["id"] != first["id"]
    assert (await bench.value())["balance"] == 20


async def test_an_override_takes_over_at_one_instant(bench: Bench) -> None:
    await bench.feature()
    first = await bench.entitle(issueAfterReset=10)
    bench.at("2026-03-02T00:00:00.0007Z")
    path = f"{LIST}/tokens/override"
    body = {
        "type": "metered", "featureKey": "tokens", "usagePeriod": {"interval": "DAY"},
        "issueAfterReset": 50, "measureUsageFrom": "2026-03-01T00:00:00Z",
    }  # fmt: skip
    second = await bench.call("PUT", path, body, 201)
    assert second["id"] != first["id"]
    ended = await bench.call("GET", f"{LIST}/{first['id']}")
    assert ended["activeTo"] == second["activeFrom"] == "2026-03-02T00:00:00Z"
    assert (await bench.value())["balance"] == 50
    # The old one answers for the time when it was in force, though the new one measures it too.
    assert (await bench.value(time="2026-03-01T18:00:00Z"))["balance"] == 10
    await bench.call("PUT", f"{LIST}/{first['id']}/override", body, 404)
    await bench.feature("other", meterSlug=None)
    problem = await bench.call("PUT", path, {"type": "boolean", "featureKey": "other"}, 400)
    assert "for the feature tokens" in problem["detail"]


async def test_a_failed_override_leaves_the_old_one(bench: Bench) -> None:
    await bench.feature()
    first = await bench.entitle(issueAfterReset=10)
    body = {"type": "metered", "featureKey": "tokens", "usagePeriod": {"interval": "PT1M"}}
    await bench.call("PUT", f"{LIST}/tokens/override", body, 400)
    assert (await bench.call("GET", f"{LIST}/tokens"))["id"] == first["id"]


async def test_an_archived_feature_gets_no_new_entitlement(bench: Bench) -> None:
    feature = await bench.feature()
    await bench.entitle(issueAfterReset=10)
    await bench.call("DELETE", "/features/tokens", status=204)
    assert (await bench.value())["hasAccess"] is True
    body = {"type": "boolean", "featureId": feature["id"]}
    problem = await bench.call("POST", "/subjects/bob/entitlements", body, 409)
    assert "archived" in problem["detail"]
    await bench.entitle("bob", 404)


PERIOD = {"interval": "MONTH"}


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"featureKey": "tokens"}, 400, "type"),
        ({"type": "golden", "featureKey": "tokens"}, 400, "metered"),
        ({"type": "metered", "usagePeriod": PERIOD}, 400, "featureKey or featureId is required"),
        ({"type": "metered", "featureKey": "nothing", "usagePeriod": PERIOD}, 404, "no such"),
        ({"type": "metered", "featureId": ULID, "usagePeriod": PERIOD}, 404, "no such feature"),
        ({"type": "metered", "featureId": "tokens", "usagePeriod": PERIOD}, 400, "is not an id"),
        ({"type": "metered", "featureKey": "tokens"}, 400, "usagePeriod: is required"),
        ({"type": "metered", "featureKey": "plain", "usagePeriod": PERIOD}, 400, "has no meter"),
        ({"type": "metered", "featureKey": "tokens", "usagePeriod": {}}, 400, "interval"),
        (
            {"type": "metered", "featureKey": "tokens", "usagePeriod": {"interval": "MONTHLY"}},
            400,
            "usagePeriod.interval: must be DAY",
        ),
        (
            {"type": "metered", "featureKey": "tokens", "usagePeriod": {"interval": "PT59M"}},
            400,
            "at least 3600 seconds",
        ),
        (
            {"type": "metered", "featureKey": "tokens",
             "usagePeriod": {"interval": "DAY", "timeZone": "Mars/Base"}},
            400,
            "usagePeriod.timeZone: unknown time zone",
        ),
        (
            {"type": "metered", "featureKey": "tokens",
             "usagePeriod": {"interval": "DAY", "anchor": "yesterday"}},
            400,
            "RFC 3339",
        ),
        (
            {"type": "metered", "featureKey": "tokens", "usagePeriod": PERIOD,
             "measureUsageFrom": "LATER"},
            400,
            "CURRENT_PERIOD_START, NOW or a time",
        ),
        (
            {"type": "metered", "featureKey": "tokens", "usagePeriod": {"interval": "PT1H"},
             "measureUsageFrom": "1983-01-01T00:00:00Z"},
            400,
            "more than 20000 usage periods",
        ),
        (
            {"type": "metered", "featureKey": "tokens", "usagePeriod": PERIOD, "config": "{}"},
            400,
            "config: is for static entitlements, not metered",
        ),
        (
            {"type": "metered", "featureKey": "tokens", "usagePeriod": PERIOD,
             "issueAfterResetPriority": 5},
            400,
            "needs issueAfterReset",
        ),
        (
            {"type": "metered", "featureKey": "tokens", "usagePeriod": PERIOD,
             "issueAfterReset": 0},
            400,
            "must be positive",
        ),
        (
            {"type": "metered", "featureKey": "tokens", "usagePeriod": PERIOD,
             "issueAfterReset": "100"},
            400,
            "must be a number",
        ),
        (
            {"type": "metered", "featureKey": "tokens", "usagePeriod": PERIOD,
             "isSoftlimit": True},
            400,
            "isSoftlimit",
        ),
        ({"type": "boolean", "featureKey": "plain", "isSoftLimit": True}, 400, "not boolean"),
        ({"type": "boolean", "featureKey": "plain", "issueAfterReset": 5}, 400, "not boolean"),
        ({"type": "boolean", "featureKey": "plain", "measureUsageFrom": "NOW"}, 400, "metered"),
        ({"type": "static", "featureKey": "plain"}, 400, "config: is required"),
        ({"type": "static", "featureKey": "plain", "config": {}}, 400, "config"),
        ({"type": "static", "featureKey": "plain", "config": "{"}, 400, "JSON object"),
        ({"type": "static", "featureKey": "plain", "config": "[1]"}, 400, "JSON object"),
        ({"type": "static", "featureKey": "plain", "config": '{"a": NaN}'}, 400, "JSON object"),
        ({"type": "static", "featureKey": "plain", "config": f'{{"a": "{"x" * 65536}"}}'}, 400,
         "65536 bytes"),
    ],
)  # fmt: skip
async def test_what_is_refused(bench: Bench, body: Any, status: int, says: str) -> None:
    await bench.feature()
    await bench.feature("plain", meterSlug=None)
    problem = await bench.call("POST", LIST, body, status)
    assert says in problem["detail"]
    assert await bench.call("GET", "/entitlements") == []


async def test_feature_id_and_key_must_agree(bench: Bench) -> None:
    feature = await bench.feature("plain", meterSlug=None)
    body = {"type": "boolean", "featureId": feature["id"], "featureKey": "other"}
    problem = await bench.call("POST", LIST, body, 400)
    assert "is the id of the feature plain, not other" in problem["detail"]
    body["featureKey"] = "plain"
    await bench.call("POST", LIST, body, 201)


@pytest.mark.parametrize("subject", ["a/b", "org/entitlements/x", "ü ?#&", "%2F", "x" * 2048])
async def test_any_subject_can_be_entitled(bench: Bench, subject: str) -> None:
    from urllib.parse import quote

    await bench.feature(issueAfterReset=None)
    path = f"/subjects/{quote(subject, safe='')}/entitlements"
    body = {"type": "metered", "featureKey": "tokens", "usagePeriod": PERIOD, "issueAfterReset": 5}
    made = await bench.call("POST", path, body, 201)
    assert made["subjectKey"] == subject
    assert (await bench.call("GET", f"{path}/tokens/value"))["balance"] == 5
    assert [one["id"] for one in await bench.call("GET", path)] == [made["id"]]
    access = await bench.call("GET", f"/subjects/{quote(subject, safe='')}/access")
    assert access["entitlements"]["tokens"]["balance"] == 5


async def test_listing_all_of_them(bench: Bench) -> None:
    feature = await bench.feature()
    await bench.feature("sso", meterSlug=None)
    made = [await bench.entitle("alice"), await bench.entitle("bob")]
    made.append(await bench.entitle("bob", type="boolean", featureKey="sso"))

    async def listed(**params: Any) -> set[str]:
        found = await bench.call("GET", "/entitlements", params=params)
        return {one["id"] for one in found}

    a, b, c = (one["id"] for one in made)
    assert await listed() == {a, b, c}
    assert await listed(subject="bob") == {b, c}
    assert await listed(**{"subject[]": ["bob", "alice"]}, feature="sso") == {c}
    assert await listed(feature=feature["id"]) == {a, b}
    assert await listed(feature=["tokens", "sso"], entitlementType="boolean") == {c}
    assert await listed(entitlementType="static") == set()
    page = await bench.call("GET", "/entitlements", params={"page": 1, "pageSize": 2})
    assert (len(page["items"]), page["totalCount"]) == (2, 3)
    problem = await bench.call("GET", "/entitlements", params={"entitlementType": "x"}, status=400)
    assert "entitlementType" in problem["detail"]
    await bench.call("DELETE", "/subjects/alice/entitlements/tokens", status=204)
    assert await listed() == {b, c}
    assert await listed(includeDeleted="true") == {a, b, c}
    assert await listed(includeDeleted="true", excludeInactive="true") == {b, c}


async def test_namespaces_are_separate(bench: Bench) -> None:
    await bench.feature()
    made = await bench.entitle()
    other = {"authorization": "other"}
    assert await bench.call("GET", LIST, headers=other) == []
    assert await bench.call("GET", "/entitlements", headers=other) == []
    for name in (made["id"], made["featureId"], "tokens"):
        for path in (f"{LIST}/{name}", f"{LIST}/{name}/value", f"{LIST}/{name}/history"):
            await bench.call("GET", path, headers=other, status=404)
        await bench.call("DELETE", f"{LIST}/{name}", headers=other, status=404)
    await bench.call("GET", f"/entitlements/{made['id']}", headers=other, status=404)
    await bench.call("POST", LIST, {"type": "boolean", "featureKey": "tokens"}, 404, headers=other)
