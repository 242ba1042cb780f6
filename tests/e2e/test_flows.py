"""Events in, figures out, through a real server: the flows that users of OpenMeter know."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import Any

import httpx
import pytest

from tests.support.meters import event, make_meter, rows, send, settle, total, wait_total
from tests.support.server import MeterlineServer, eventually

StartServer = Callable[..., MeterlineServer]


@pytest.fixture(scope="module")
def client(server: MeterlineServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def ingest(client: httpx.Client, body: Any, media_type: str = "application/json") -> httpx.Response:
    content = body if isinstance(body, str) else json.dumps(body)
    return client.post("/api/v1/events", content=content, headers={"content-type": media_type})


def windows(found: list[dict[str, Any]]) -> list[tuple[str, str, int]]:
    return [(row["windowStart"], row["windowEnd"], int(row["value"])) for row in found]


def test_single_events_with_values_as_strings(client: httpx.Client) -> None:
    make_meter(client, "f_single", "SUM", eventType="f-single", valueProperty="$.duration_ms")
    middle = datetime(2025, 6, 15, 12, tzinfo=UTC)
    for number in range(1, 101):
        time = (middle + timedelta(hours=7 * (number - 50))).isoformat()
        one = event(f"{number}", type="f-single", time=time, data={"duration_ms": f"{number}"})
        assert ingest(client, one, "application/cloudevents+json").status_code == 204
    settle(client)
    assert total(client, "f_single") == 5050


def test_lenient_json_takes_one_and_many(client: httpx.Client) -> None:
    make_meter(client, "f_lenient", "SUM", eventType="f-lenient", valueProperty="$.n")
    events = [event(name, type="f-lenient", data={"n": "100"}) for name in "abc"]
    for one in events:
        del one["specversion"]
    assert ingest(client, events[0]).status_code == 204
    assert ingest(client, events[1:], "application/json; charset=utf-8").status_code == 204
    settle(client)
    assert total(client, "f_lenient") == 300


def test_what_a_meter_cannot_use_is_kept_and_named(client: httpx.Client) -> None:
    make_meter(client, "f_faults", "SUM", eventType="f-faults", valueProperty="$.n")
    for number, data in enumerate([None, {}, {"n": "NaN"}, {"n": "Inf"}, {"n": "100"}]):
        send(client, [event(f"{number}", type="f-faults", data=data)])
    send(client, [event("absent", type="f-faults")])
    settle(client)
    assert total(client, "f_faults") == 100
    items = client.get("/api/v1/events", params={"type": "f-faults"}).json()
    assert [item["event"]["id"] for item in items] == ["absent", "4", "3", "2", "1", "0"]
    assert ["validationError" in item for item in items] == [True, False, True, True, True, True]
    wrong = client.get("/api/v1/events", params={"type": "f-faults", "hasError": "true"}).json()
    assert len(wrong) == 5


def test_the_same_event_counts_once(client: httpx.Client) -> None:
    make_meter(client, "f_dedupe", "COUNT", eventType="f-dedupe")
    same = event("same", type="f-dedupe")
    send(client, [same] * 100)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: send(client, [same, event("other", type="f-dedupe")]), range(50)))
    settle(client)
    assert total(client, "f_dedupe") == 2
    send(client, [event("same", type="f-dedupe", source="elsewhere")])
    settle(client)
    assert total(client, "f_dedupe") == 3


def test_the_first_content_wins_and_the_conflict_is_visible(client: httpx.Client) -> None:
    make_meter(client, "f_conflict", "SUM", eventType="f-conflict", valueProperty="$.n")
    for number in (1, 2):
        send(client, [event("x", type="f-conflict", data={"n": number})])
        settle(client)
    assert total(client, "f_conflict") == 1
    items = client.get("/api/v1/events", params={"type": "f-conflict"}).json()
    assert [item["event"]["data"]["n"] for item in items] == [2, 1]
    assert "validationError" in items[0]
    assert "validationError" not in items[1]


def test_queries_by_window_and_subject(client: httpx.Client) -> None:
    make_meter(client, "f_query", "SUM", eventType="f-query", valueProperty="$.n")
    midnight = datetime(2024, 3, 5, tzinfo=UTC)
    later = [timedelta(), timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)]
    send(
        client,
        [
            event(
                f"{subject}/{after}",
                type="f-query",
                subject=f"customer-{subject}",
                time=(midnight + after).isoformat(),
                data={"n": 100},
            )
            for subject in range(5)
            for after in later
        ],
    )
    settle(client)
    [whole] = rows(client, "f_query")
    assert whole["value"] == 2000
    assert (whole["windowStart"], whole["windowEnd"]) == (
        "2024-03-05T00:00:00Z",
        "2024-03-06T00:01:00Z",
    )
    assert whole["groupBy"] == {}
    assert [int(row["value"]) for row in rows(client, "f_query", windowSize="MINUTE")] == [500] * 4
    assert windows(rows(client, "f_query", windowSize="HOUR")) == [
        ("2024-03-05T00:00:00Z", "2024-03-05T01:00:00Z", 1000),
        ("2024-03-05T01:00:00Z", "2024-03-05T02:00:00Z", 500),
        ("2024-03-06T00:00:00Z", "2024-03-06T01:00:00Z", 500),
    ]
    assert windows(rows(client, "f_query", windowSize="MONTH")) == [
        ("2024-03-01T00:00:00Z", "2024-04-01T00:00:00Z", 2000)
    ]
    two = rows(client, "f_query", subject=["customer-0", "customer-1"])
    assert [(row["subject"], int(row["value"])) for row in two] == [
        ("customer-0", 400),
        ("customer-1", 400),
    ]
    cut = rows(client, "f_query", **{"from": "2024-03-05T00:01:00Z", "to": "2024-03-06T00:00:00Z"})
    assert [int(row["value"]) for row in cut] == [1000]
    posted = client.post("/api/v1/meters/f_query/query", json={})
    assert posted.json()["data"][0]["value"] == 2000
    written = client.get(
        "/api/v1/meters/f_query/query",
        params={"windowSize": "DAY", "groupBy": "subject", "subject": "customer-0"},
        headers={"accept": "text/csv"},
    )
    assert written.headers["content-type"].startswith("text/csv")
    assert [line.split(",")[:2] + line.split(",")[-1:] for line in written.text.splitlines()] == [
        ["window_start", "window_end", "value"],
        ["2024-03-05T00:00:00Z", "2024-03-06T00:00:00Z", "300"],
        ["2024-03-06T00:00:00Z", "2024-03-07T00:00:00Z", "100"],
    ]


@pytest.mark.parametrize(
    ("first_day", "short_or_long", "hours"),
    [(datetime(2025, 3, 6), "2025-03-09", 23), (datetime(2025, 10, 30), "2025-11-02", 25)],
)
def test_days_follow_daylight_saving(
    client: httpx.Client, first_day: datetime, short_or_long: str, hours: int
) -> None:
    kind = f"f-dst-{hours}"
    make_meter(client, f"f_dst_{hours}", "SUM", eventType=kind, valueProperty="$.n")
    days = [first_day + timedelta(days=number) for number in range(7)]
    times = [(day + timedelta(hours=18)).strftime("%Y-%m-%dT%H:%M:%SZ") for day in days]
    send(client, [event(t, type=kind, time=t, data={"n": 1}) for t in times])
    settle(client)
    found = rows(client, f"f_dst_{hours}", windowSize="DAY", windowTimeZone="America/Los_Angeles")
    starts = [datetime.fromisoformat(row["windowStart"]) for row in found]
    ends = [datetime.fromisoformat(row["windowEnd"]) for row in found]
    assert len(found) == 7
    assert starts[1:] == ends[:-1]
    lengths = {
        start.astimezone(UTC).date().isoformat(): (end - start) / timedelta(hours=1)
        for start, end in zip(starts, ends, strict=True)
    }
    assert lengths.pop(short_or_long) == hours
    assert set(lengths.values()) == {24}


def test_no_digit_is_lost(client: httpx.Client) -> None:
    numbers = ["0.1", "0.1", "0.1", "0.000000000000000001", "9007199254740993", "1e3"]
    numbers += ["99999999999999999999", '"12.50"', "-0.3"]
    for aggregation in ("SUM", "MAX", "MIN", "AVG"):
        slug = f"f_exact_{aggregation.lower()}"
        make_meter(client, slug, aggregation, eventType="f-exact", valueProperty="$.n")
    send(
        client,
        [
            json.dumps(event(f"{at}", type="f-exact", data="DATA")).replace(
                '"DATA"', f'{{"n":{n}}}'
            )
            for at, n in enumerate(numbers)
        ],
    )
    settle(client)
    values = [Decimal(number.strip('"')) for number in numbers]
    with localcontext(prec=60):
        exact = sum(values, Decimal())
        assert total(client, "f_exact_sum") == exact
        assert total(client, "f_exact_avg") == (exact / len(values)).quantize(Decimal("1e-18"))
    assert total(client, "f_exact_max") == max(values)
    assert total(client, "f_exact_min") == min(values)


def test_a_younger_meter_and_a_new_group_count_what_is_there(client: httpx.Client) -> None:
    sizes = ("small", "large", "large")
    send(client, [event(f"{at}", type="f-late", data={"m": m}) for at, m in enumerate(sizes)])
    settle(client)
    make_meter(client, "f_late", "COUNT", eventType="f-late")
    wait_total(client, "f_late", 3)
    changed = client.put("/api/v1/meters/f_late", json={"groupBy": {"model": "$.m"}})
    assert changed.status_code == 200, changed.text
    send(client, [event("4", type="f-late", data={"m": "small"})])
    settle(client)
    groups = {
        row["groupBy"]["model"]: row["value"] for row in rows(client, "f_late", groupBy="model")
    }
    assert groups == {"small": 2, "large": 2}
    only = rows(client, "f_late", **{"filterGroupBy[model]": "large"})
    assert [row["value"] for row in only] == [2]


def test_one_bad_event_refuses_the_batch(client: httpx.Client) -> None:
    make_meter(client, "f_batch", "COUNT", eventType="f-batch")
    good = event("good", type="f-batch")
    bad = event("bad", type="f-batch", time="yesterday")
    worse = event("", type="f-batch")
    refused = ingest(client, [good, bad, worse], "application/cloudevents-batch+json")
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"
    places = [fault["where"] for fault in refused.json()["extensions"]["validationErrors"]]
    assert places == ["events[1].time", "events[2].id"]
    settle(client)
    assert total(client, "f_batch") is None


def test_purging_a_subject_erases_its_usage(client: httpx.Client) -> None:
    make_meter(client, "f_purge", "COUNT", eventType="f-purge")
    send(client, [event(f"{who}", type="f-purge", subject=f"p-{who}") for who in range(2)])
    settle(client)
    client.post("/api/v1/subjects", json=[{"key": "p-0"}]).raise_for_status()
    assert client.delete("/api/v1/subjects/p-0").status_code == 204
    assert total(client, "f_purge") == 2
    client.post("/api/v1/subjects", json=[{"key": "p-0"}]).raise_for_status()
    assert client.delete("/api/v1/subjects/p-0", params={"purgeUsage": "true"}).status_code == 204
    eventually(lambda: total(client, "f_purge") == 1, "the usage is gone")
    assert client.get("/api/v1/events", params={"subject": "p-0"}).json() == []


def test_the_server_tells_how_it_is(client: httpx.Client) -> None:
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
    assert client.get("/openapi.json").json()["openapi"].startswith("3.1")
    assert "meterline_" in client.get("/metrics").text
    missing = client.get("/api/v1/nothing")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"


def test_everything_is_still_there_after_a_restart(start_server: StartServer) -> None:
    server = start_server()
    with server.client() as client:
        make_meter(client, "kept", "COUNT", eventType="t")
        send(client, [event("1"), event("2")])
    assert server.stop() == 0
    server.restart()
    with server.client() as client:
        send(client, [event("2"), event("3")])
        settle(client)
        assert total(client, "kept") == 3
