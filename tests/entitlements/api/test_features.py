"""Features over HTTP."""

import asyncio
from typing import Any

import pytest

from meterline.kernel.meters import Aggregation
from tests.support.entitlements import Bench
from tests.support.usage import meter

ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


async def test_a_metered_feature(bench: Bench) -> None:
    made = await bench.feature(
        "gpt4_tokens", meterGroupByFilters={"model": "gpt-4"}, metadata={"plan": "pro"}
    )
    assert made == {
        "id": made["id"],
        "key": "gpt4_tokens",
        "name": "gpt4_tokens",
        "meterSlug": "tokens",
        "meterGroupByFilters": {"model": "gpt-4"},
        "advancedMeterGroupByFilters": {"model": {"$eq": "gpt-4"}},
        "metadata": {"plan": "pro"},
        "createdAt": "2026-03-01T12:00:00Z",
        "updatedAt": "2026-03-01T12:00:00Z",
    }
    for name in ("gpt4_tokens", made["id"], made["id"].lower()):
        assert await bench.call("GET", f"/features/{name}") == made
    assert await bench.call("GET", "/features") == [made]


async def test_a_feature_without_a_meter_and_without_a_name(bench: Bench) -> None:
    made = await bench.call("POST", "/features", {"key": "sso"}, 201)
    assert made["name"] == "sso"
    assert not [name for name in made if name.lower().startswith(("meter", "advanced"))]


async def test_filters_of_many_values(bench: Bench) -> None:
    chosen = {"model": {"$in": ["gpt-4", "gpt-4o", "gpt-4"]}}
    made = await bench.feature(advancedMeterGroupByFilters=chosen)
    assert made["advancedMeterGroupByFilters"] == {"model": {"$in": ["gpt-4", "gpt-4o"]}}
    assert "meterGroupByFilters" not in made
    await bench.entitle()
    await bench.grant(100)
    bench.clock.advance(1)
    bench.use(3, model="gpt-4")
    bench.use(4, model="gpt-4o")
    bench.use(50, model="gpt-3")
    assert (await bench.value())["usage"] == 7


async def test_archiving_frees_the_key(bench: Bench) -> None:
    first = await bench.feature()
    problem = await bench.call("POST", "/features", {"key": "tokens", "name": "x"}, 409)
    assert problem["extensions"] == {"conflictingEntityId": first["id"]}
    await bench.call("DELETE", "/features/tokens", status=204)
    second = await bench.feature()
    assert [one["id"] for one in await bench.call("GET", "/features")] == [second["id"]]
    archived = await bench.call("GET", f"/features/{first['id']}")
    assert archived["archivedAt"] == "2026-03-01T12:00:00Z"
    both = await bench.call("GET", "/features", params={"includeArchived": "true"})
    assert {one["id"] for one in both} == {first["id"], second["id"]}
    await bench.call("DELETE", f"/features/{first['id']}", status=404)


async def test_of_two_creates_at_once_one_wins(bench: Bench) -> None:
    body = {"key": "tokens", "name": "Tokens"}
    calls = (bench.http.post("/api/v1/features", json=body) for _ in range(5))
    answers = await asyncio.gather(*calls)
    assert sorted(one.status_code for one in answers) == [201, 409, 409, 409, 409]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"name": "x"}, 400, "key"),
        ({"key": "Tokens"}, 400, "pattern"),
        ({"key": "a" * 65}, 400, "64"),
        ({"key": ULID.lower()}, 400, "must not look like an id"),
        ({"key": "x", "meterSlug": "nothing"}, 404, "no meter nothing"),
        ({"key": "x", "meterSlug": "average"}, 400, "not AVG"),
        ({"key": "x", "meterSlug": "lowest"}, 400, "not MIN"),
        ({"key": "x", "meterGroupByFilters": {"model": "a"}}, 400, "with a meterSlug"),
        ({"key": "x", "meterSlug": "tokens", "meterGroupByFilters": {"m": "a"}}, 400, "has model"),
        (
            {"key": "x", "meterSlug": "tokens", "advancedMeterGroupByFilters": {"model": {}}},
            400,
            "$eq or $in",
        ),
        (
            {"key": "x", "meterSlug": "tokens", "advancedMeterGroupByFilters": {
                "model": {"$like": "a%"}}},
            400,
            "$like",
        ),
        ({"key": "x", "meterGroupByfilters": {}}, 400, "meterGroupByfilters"),
        ({"key": "x", "name": "a\0b"}, 400, "NUL"),
        ({"key": "x", "metadata": {"a": 1}}, 400, "metadata"),
        ({"key": "x", "metadata": {str(i): "" for i in range(51)}}, 400, "at most 50"),
        ([], 400, "body"),
    ],
)  # fmt: skip
async def test_what_is_refused(bench: Bench, body: Any, status: int, says: str) -> None:
    bench.meters.add(meter("average", Aggregation.AVG))
    bench.meters.add(meter("lowest", Aggregation.MIN))
    problem = await bench.call("POST", "/features", body, status)
    assert says in problem["detail"]


async def test_pages(bench: Bench) -> None:
    keys = ["a", "b", "c"]
    for key in keys:
        await bench.feature(key, meterSlug=None)
        bench.clock.advance(1)
    page = await bench.call("GET", "/features", params={"page": 2, "pageSize": 2})
    assert [one["key"] for one in page.pop("items")] == ["c"]
    assert page == {"totalCount": 3, "page": 2, "pageSize": 2}
    listed = await bench.call("GET", "/features", params={"limit": 1, "offset": 1})
    assert [one["key"] for one in listed] == ["b"]
    params = {"order": "DESC", "orderBy": "updatedAt"}
    listed = await bench.call("GET", "/features", params=params)
    assert [one["key"] for one in listed] == ["c", "b", "a"]
    assert await bench.call("GET", "/features", params={"meterSlug": "tokens"}) == []
    for bad in ({"page": 0}, {"pageSize": 2000, "page": 1}, {"limit": 0}, {"orderBy": "key"}):
        await bench.call("GET", "/features", params=bad, status=400)


async def test_namespaces_are_separate(bench: Bench) -> None:
    made = await bench.feature("shared", meterSlug=None)
    other = {"authorization": "other"}
    assert await bench.call("GET", "/features", headers=other) == []
    await bench.call("GET", f"/features/{made['id']}", headers=other, status=404)
    await bench.call("DELETE", "/features/shared", headers=other, status=404)
    await bench.call("POST", "/features", {"key": "shared"}, 201, headers=other)


async def test_a_long_list_leads_on(bench: Bench) -> None:
    keys = {"a", "b", "c", "d", "e"}
    for key in keys:
        await bench.feature(key, meterSlug=None)
    found: list[str] = []
    address = "/api/v1/features?limit=2&order=DESC"
    while address:
        response = await bench.http.get(address)
        assert len(response.json()) <= 2
        found += [one["key"] for one in response.json()]
        link = response.headers.get("link", "")
        assert not link or link.endswith('>; rel="next"')
        address = link.partition(">")[0].removeprefix("<")
    assert len(found) == 5
    assert set(found) == keys
