from typing import Any

import pytest

from tests.aggregator.api.conftest import Api
from tests.support.api import assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY: dict[str, Any] = {
    "slug": "tokens",
    "aggregation": "SUM",
    "eventType": "llm.usage",
    "valueProperty": "$.tokens",
}


async def test_a_meters_life(api: Api) -> None:
    made = await api.meter(
        groupBy={"model": "$.model"}, eventFrom="2026-01-01T01:00:00+01:00", metadata={"a": "b"}
    )
    assert made["name"] == "tokens"
    assert made["eventFrom"] == "2026-01-01T00:00:00Z"
    assert made["createdAt"] == made["updatedAt"] == "2026-03-01T12:00:00Z"
    assert "description" not in made
    await api.rig.sink.upkeep.settled()
    ready = {**made, "status": {"state": "ready", "progress": 1.0}}
    for name in ("tokens", made["id"], made["id"].lower()):
        assert (await api.http.get(f"/api/v1/meters/{name}")).json() == ready
    change = {"name": "Tokens", "description": "All", "groupBy": {"tier": "$.tier"}}
    changed = (await api.http.put("/api/v1/meters/tokens", json=change)).json()
    assert changed == {**made, **change, "status": changed["status"]}
    assert (await api.http.get("/api/v1/meters?page=1&pageSize=100")).json() == [changed]
    assert (await api.http.delete("/api/v1/meters/tokens")).status_code == 204
    assert_problem(await api.http.get("/api/v1/meters/tokens"), 404)
    assert_problem(await api.http.delete("/api/v1/meters/tokens"), 404)
    assert (await api.http.get("/api/v1/meters")).json() == []


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"slug": "Tokens"}, "slug"),
        ({"slug": None}, "slug"),
        ({"aggregation": "MEDIAN"}, "aggregation"),
        ({"eventType": ""}, "eventType"),
        ({"valueProperty": "tokens"}, "valueProperty"),
        ({"valueProperty": None}, "valueProperty"),
        ({"aggregation": "COUNT"}, "valueProperty"),
        ({"groupBy": {"a-b": "$.a"}}, "groupBy.a-b"),
        ({"groupBy": {"a": "$.tokens"}}, "groupBy.a"),
        ({"groupBy": {"a": 1}}, "groupBy.a"),
        ({"eventFrom": "yesterday"}, "eventFrom"),
        ({"windowSize": "DAY"}, "windowSize"),
        ({"description": "x" * 1025}, "description"),
    ],
)
async def test_faults_name_their_field(api: Api, changes: dict[str, Any], where: str) -> None:
    problem = assert_problem(await api.http.post("/api/v1/meters", json={**BODY, **changes}), 400)
    extensions: Any = problem["extensions"]
    assert where in extensions["validationErrors"][0]["where"]
    assert (await api.http.get("/api/v1/meters")).json() == []


async def test_what_cannot_change_is_refused(api: Api) -> None:
    await api.meter()
    for change in ({"slug": "x"}, {"aggregation": "MAX"}, {"eventType": "x"}):
        assert_problem(await api.http.put("/api/v1/meters/tokens", json=change), 400)
    wrong = {"groupBy": {"a": "$.tokens"}}
    assert_problem(await api.http.put("/api/v1/meters/tokens", json=wrong), 400)
    assert_problem(await api.http.post("/api/v1/meters", json=BODY), 409)
    assert_problem(await api.http.put("/api/v1/meters/nothing", json={}), 404)


async def test_meters_of_the_server_stay_as_they_are(api: Api) -> None:
    made = await api.meter(slug="meterline_tokens", groupBy={"model": "$.model"})
    for name in ("meterline_tokens", made["id"]):
        path = f"/api/v1/meters/{name}"
        assert_problem(await api.http.put(path, json={"groupBy": {}}), 409)
        assert_problem(await api.http.delete(path), 409)
    assert (await api.http.get("/api/v1/meters/meterline_tokens")).json() == made


async def test_subjects_and_values_of_a_range(api: Api) -> None:
    await api.meter(groupBy={"model": "$.model"})
    for day, subject, model in ((1, "a", '"x"'), (2, "b", "1.50"), (3, "b", "null")):
        data = f'{{"tokens": 1, "model": {model}}}'
        await api.send(data, subject=subject, time=f"2026-02-0{day}T00:00:00Z")
    path = "/api/v1/meters/tokens"
    assert (await api.http.get(f"{path}/subjects")).json() == ["a", "b"]
    late = {"from": "2026-02-02T00:00:00Z", "to": "2026-02-03T00:00:00Z"}
    assert (await api.http.get(f"{path}/subjects", params=late)).json() == ["b"]
    assert (await api.http.get(f"{path}/group-by/model/values")).json() == ["1.5", "x"]
    assert (await api.http.get(f"{path}/group-by/model/values", params=late)).json() == ["1.5"]
    assert (await api.http.get(f"{path}/group-by/subject/values")).json() == ["a", "b"]
    assert_problem(await api.http.get(f"{path}/group-by/none/values"), 404)
    assert_problem(await api.http.get(f"{path}/subjects?from=x"), 400)


@pytest.mark.parametrize(
    "name",
    ["'; DROP TABLE points; --", "%00", "..%2f..", "{p0:String}", "%F0%9F%98%80", "a" * 5000]
    + ["%ff", "tokens%00", "tokens%20", "TOKENS", "*", "%25"],
)
async def test_hostile_names_find_nothing(api: Api, name: str) -> None:
    await api.meter(groupBy={"model": "$.model"})
    await api.send('{"tokens": 1}')
    for path in (f"{name}", f"{name}/query", f"{name}/subjects", f"tokens/group-by/{name}/values"):
        response = await api.http.get(f"/api/v1/meters/{path}")
        text = str(assert_problem(response, 404))
        assert "SELECT" not in text
        assert "sqlite" not in text.lower()
    assert len(await api.rows()) == 1
