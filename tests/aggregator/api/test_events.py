import json
from typing import Any

import pytest

from tests.aggregator.api.conftest import Api
from tests.support.api import assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/api/v1/events"


async def listed(api: Api, **params: Any) -> Any:
    response = await api.http.get(PATH, params=params)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


async def ids(api: Api, **params: Any) -> list[str]:
    return [item["event"]["id"] for item in await listed(api, **params)]


async def test_an_event_comes_back_as_it_was_sent(api: Api) -> None:
    await api.meter()
    data = '{"tokens" : 1.50, "big": 12345678901234567890123, "tokens": 2}'
    await api.send(
        data,
        id="one",
        subject="ünï",
        time="2026-02-01T00:00:00.250Z",
        datacontenttype="application/json",
        _ext={"traceparent": "00-1", "seven": 7},
    )
    response = await api.http.get(PATH)
    assert f'"data":{data}' in response.text
    [item] = json.loads(response.text)
    event = item["event"]
    del event["data"]
    assert event == {
        "specversion": "1.0",
        "id": "one",
        "source": "/app",
        "type": "llm.usage",
        "subject": "ünï",
        "time": "2026-02-01T00:00:00.25Z",
        "datacontenttype": "application/json",
        "traceparent": "00-1",
        "seven": 7,
    }
    assert item["ingestedAt"] == "2026-01-15T12:00:00Z"
    assert item["storedAt"].endswith("Z")
    assert "validationError" not in item


@pytest.mark.parametrize("data", ['"text"', "12", "null", "[1, 2]", "true"])
async def test_data_that_is_no_object_is_kept_too(api: Api, data: str) -> None:
    await api.meter(aggregation="COUNT")
    await api.send(data)
    assert f'"data":{data}' in (await api.http.get(PATH)).text


async def test_binary_data(api: Api) -> None:
    await api.meter(aggregation="COUNT")
    await api.send(None, data_base64="AAEC")
    [item] = await listed(api)
    assert item["event"]["data_base64"] == "AAEC"
    assert "data" not in item["event"]


async def test_openmeters_invalid_ingest_test(api: Api) -> None:
    await api.meter(valueProperty="$.duration_ms")
    for number, data in enumerate(
        [
            "null",
            None,
            "{}",
            '{"duration_ms": "NaN"}',
            '{"duration_ms": "Inf"}',
            '{"duration_ms": "100"}',
        ]
    ):
        await api.send(data, time=f"2026-02-01T00:0{number}:00Z")
    errors = [item.get("validationError") for item in await listed(api)]
    assert errors == [
        None,
        "value cannot be NaN/infinity",
        "value cannot be NaN/infinity",
        'invalid event: missing value property: "$.duration_ms"',
        "invalid event: null and missing value property",
        "invalid event: null and missing value property",
    ]
    assert [row["value"] for row in await api.rows()] == [100]


async def test_each_kind_of_error(api: Api) -> None:
    await api.meter()
    await api.send('{"tokens": 1}', id="good", time="2026-02-01T00:00:05Z")
    await api.send('{"tokens": 2}', id="good", time="2026-02-01T00:00:04Z")
    await api.send("{}", id="unknown", type="other", time="2026-02-01T00:00:03Z")
    await api.send('{"tokens": "x"}', id="bad", time="2026-02-01T00:00:02Z")
    everything = [(item["event"]["id"], item.get("validationError")) for item in await listed(api)]
    assert everything == [
        ("good", None),
        ("good", "conflict: an event with this source and id was stored before with other content"),
        ("unknown", "no meter found for event type: other"),
        ("bad", "value cannot be parsed as a decimal"),
    ]
    assert await ids(api, hasError="true") == ["good", "unknown", "bad"]
    assert await ids(api, hasError="false") == ["good"]
    await api.http.delete("/api/v1/meters/tokens")
    assert len(await ids(api, hasError="true")) == 4
    assert await ids(api, hasError="false") == []


async def test_filters(api: Api) -> None:
    await api.meter(aggregation="COUNT")
    for number, subject in enumerate(("a", "b", "a")):
        time = f"2026-02-0{number + 1}T00:00:00Z"
        await api.send("{}", id=f"id-{number}", subject=subject, source=f"/s{number}", time=time)
    await api.send("{}", id="other", type="other", time="2026-01-01T00:00:00Z")
    assert await ids(api) == ["id-2", "id-1", "id-0", "other"]
    assert await ids(api, subject="a") == ["id-2", "id-0"]
    assert await ids(api, type="other") == ["other"]
    assert await ids(api, source="/s1") == ["id-1"]
    assert await ids(api, id="d-1") == ["id-1"]
    assert await ids(api, id="%") == []
    assert await ids(api, **{"from": "2026-02-02T00:00:00Z"}) == ["id-2", "id-1"]
    assert await ids(api, to="2026-02-01T00:00:00Z") == ["other"]
    assert await ids(api, ingestedAtFrom="2026-01-15T12:00:00.001Z") == []
    assert len(await ids(api, ingestedAtFrom="2026-01-15T12:00:00Z")) == 4
    assert await ids(api, ingestedAtTo="2026-01-15T12:00:00Z") == []
    hostile = "x' OR 1=1; --\\"
    assert await ids(api, id=hostile, subject=hostile, type=hostile, source=hostile) == []


async def test_pages_follow_each_other_while_events_arrive(api: Api) -> None:
    await api.meter(aggregation="COUNT")
    time = "2026-02-01T00:00:00Z"
    for number in range(5):
        await api.send("{}", id=f"{number}", time=time)
    first = await api.http.get(PATH, params={"limit": 2, "type": "llm.usage"})
    assert [item["event"]["id"] for item in first.json()] == ["4", "3"]
    await api.send("{}", id="newer", time="2026-02-02T00:00:00Z")
    following = first.links["next"]["url"]
    assert "type=llm.usage" in following
    second = await api.http.get(following)
    assert [item["event"]["id"] for item in second.json()] == ["2", "1"]
    cursor = second.headers["x-next-cursor"]
    third = await api.http.get(PATH, params={"limit": 2, "cursor": cursor})
    assert [item["event"]["id"] for item in third.json()] == ["0"]
    assert "x-next-cursor" not in third.headers


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 101},
        {"limit": "x"},
        {"from": "x"},
        {"ingestedAtTo": "x"},
        {"from": "2026-02-01T00:00:00Z", "to": "2026-02-01T00:00:00Z"},
        {"hasError": "perhaps"},
        {"cursor": "x"},
        {"cursor": "WzEsMiwzXQ"},
        {"cursor": "Wy0xLC0xLC0xLC0xXQ"},
        {"subject": "a\0b"},
        {"source": "a\0b"},
        {"id": "x" * 5000},
    ],
)
async def test_wrong_parameters_are_refused(api: Api, params: dict[str, Any]) -> None:
    assert_problem(await api.http.get(PATH, params=params), 400)
