import csv
import io
import json
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.aggregator.api.conftest import Api
from tests.support.api import assert_problem

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATH = "/api/v1/meters/tokens/query"
MIDNIGHT = "2026-02-01T00:00:00Z"


async def test_openmeters_query_test(api: Api) -> None:
    """Five subjects at midnight, a minute, an hour and a day later, 100 each."""
    await api.meter()
    times = [MIDNIGHT, "2026-02-01T00:01:00Z", "2026-02-01T01:00:00Z", "2026-02-02T00:00:00Z"]
    for number in range(5):
        for time in times:
            await api.send('{"tokens": "100"}', subject=f"customer-{number}", time=time)
    row = {
        "value": 2000,
        "windowStart": MIDNIGHT,
        "windowEnd": "2026-02-02T00:01:00Z",
        "subject": None,
        "groupBy": {},
    }
    assert await api.rows() == [row]
    assert (await api.http.post(PATH, json={})).json() == {"data": [row]}
    assert (await api.http.post(PATH)).json() == {"data": [row]}
    by = {
        size: [one["value"] for one in await api.rows(windowSize=size)]
        for size in ("MINUTE", "HOUR", "DAY", "MONTH")
    }
    assert by["MINUTE"] == [500] * 4
    assert by["HOUR"] == [1000, 500, 500]
    assert by["DAY"] == [1500, 500]
    assert by["MONTH"] == [2000]
    two = await api.rows(subject=["customer-0", "customer-1"])
    assert [(one["subject"], one["value"]) for one in two] == [
        ("customer-0", 400),
        ("customer-1", 400),
    ]
    answer = await api.http.get(PATH, headers={"accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="tokens.csv"'
    assert answer.text == f"window_start,window_end,value\n{MIDNIGHT},2026-02-02T00:01:00Z,2000\n"


@pytest.mark.parametrize(("first", "month", "change", "hours"), [(6, 3, 9, 23), (30, 10, 2, 25)])
async def test_openmeters_dst_test(
    api: Api, first: int, month: int, change: int, hours: int
) -> None:
    """Daily events at 10:00 in Los Angeles around the change of the clocks."""
    tz = ZoneInfo("America/Los_Angeles")
    await api.meter()
    days = [datetime(2025, month, first, tzinfo=tz) + timedelta(days=n) for n in range(8)]
    for day in days[:7]:
        time = day.replace(hour=10).astimezone(ZoneInfo("UTC")).isoformat()
        await api.send('{"tokens": 1}', time=time)
    rows = await api.rows(
        windowSize="DAY",
        windowTimeZone="America/Los_Angeles",
        **{"from": days[0].isoformat(), "to": days[7].isoformat()},
    )
    assert len(rows) == 7
    assert all(
        one["windowEnd"] == two["windowStart"] for one, two in zip(rows, rows[1:], strict=False)
    )
    lengths = {}
    for row in rows:
        start = datetime.fromisoformat(row["windowStart"]).astimezone(tz)
        end = datetime.fromisoformat(row["windowEnd"])
        assert (start.hour, start.minute) == (0, 0)
        lengths[start.day] = (end - start).total_seconds() / 3600
    assert lengths.pop(change) == hours
    assert set(lengths.values()) == {24}


async def test_numbers_keep_every_digit(api: Api) -> None:
    await api.meter(groupBy={"n": "$.n"})
    values = ["12345678901234567890.123456789012345678", "0.1", "1e3", "9007199254740993"]
    for number, value in enumerate(values):
        await api.send(f'{{"tokens": {value}, "n": {number}}}')
    answer = await api.http.get(PATH, params={"groupBy": "n"})
    plain = ["12345678901234567890.123456789012345678", "0.1", "1000", "9007199254740993"]
    for text in plain:
        assert f'"value":{text},' in answer.text
    total = json.loads((await api.http.get(PATH)).text, parse_float=Decimal)
    assert total["data"][0]["value"] == Decimal("12354686100489309883.223456789012345678")
    csv = (await api.http.get(PATH, params={"groupBy": "n"}, headers={"accept": "text/csv"})).text
    assert [line.rsplit(",", 1)[1] for line in csv.splitlines()[1:]] == plain


async def test_the_range_frames_the_answer(api: Api) -> None:
    await api.meter()
    await api.send('{"tokens": 1}', time="2026-02-01T10:00:30Z")
    await api.send('{"tokens": 2}', time="2026-02-01T11:00:00Z")
    span = {"from": MIDNIGHT, "to": "2026-02-01T11:00:00Z"}
    body = (await api.http.get(PATH, params=span)).json()
    assert (body["from"], body["to"]) == (span["from"], span["to"])
    [row] = body["data"]
    assert (row["windowStart"], row["windowEnd"]) == (span["from"], span["to"])
    assert row["value"] == 1  # `to` is not included
    [row] = await api.rows(**{"from": "2026-02-01T10:00:30Z"})
    assert (row["windowStart"], row["windowEnd"]) == (
        "2026-02-01T10:00:30Z",
        "2026-02-01T11:01:00Z",
    )
    [row] = await api.rows(**{"from": "2026-02-01T10:00:31Z", "windowSize": "HOUR"})
    assert (row["windowStart"], row["value"]) == ("2026-02-01T11:00:00Z", 2)
    assert await api.rows(**{"from": "2027-01-01T00:00:00Z"}) == []


async def test_groups_and_filters(api: Api) -> None:
    await api.meter(groupBy={"model": "$.model", "tier": "$.tier"})
    for model, tier, tokens in (("a", "free", 1), ("a", "pro", 2), ("b", "pro", 4)):
        await api.send(f'{{"tokens": {tokens}, "model": "{model}", "tier": "{tier}"}}')
    await api.send('{"tokens": 8}', subject="bob")

    async def values(**params: Any) -> list[Any]:
        return [row["value"] for row in await api.rows(**params)]

    [first, *_] = await api.rows(groupBy=["model", "subject"])
    assert first["groupBy"] == {"model": "a"}
    assert first["subject"] == "alice"
    assert await values(groupBy="model") == [8, 3, 4]
    assert await values(**{"groupBy[]": "model"}) == [8, 3, 4]
    assert await values(**{"filterGroupBy[model]": "a"}) == [3]
    assert await values(**{"filterGroupBy[model]": ["a", "b"]}) == [7]
    assert await values(**{"filterGroupBy[model]": "a", "filterGroupBy[tier]": "pro"}) == [2]
    assert await values(**{"filterGroupBy[model]": ""}) == [8]
    for name in ("filterGroupBy", "advancedMeterGroupByFilters"):
        for condition, total in (
            ("a", 3),
            (["a", "b"], 7),
            ({"$ne": "a"}, 12),
            ({"$in": ["a", ""]}, 11),
            ({"$nin": ["a"]}, 12),
            ({"$like": "_"}, 7),
            ({"$gt": "a"}, 4),
            ({"$gte": "a", "$lt": "b"}, 3),
            ({"$or": [{"$eq": "b"}, {"$lte": ""}]}, 12),
            ({"$and": [{"$ne": "a"}, {"$ne": ""}]}, 4),
        ):
            answer = await api.http.post(PATH, json={name: {"model": condition}})
            assert [row["value"] for row in answer.json()["data"]] == [total], condition
    both = {"filterGroupBy": {"model": "a"}, "advancedMeterGroupByFilters": {"model": {"$eq": "a"}}}
    assert_problem(await api.http.post(PATH, json=both), 400)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"groupBy": "nope"}, "invalid group by: nope"),
        ({"groupBy": "x'; DROP TABLE points; --"}, "invalid group by"),
        ({"filterGroupBy[nope]": "x"}, "invalid group by filter: nope"),
        ({"windowTimeZone": "Mars/Base"}, "unknown time zone"),
        ({"windowTimeZone": "../../etc/passwd"}, "unknown time zone"),
        ({"windowTimeZone": "UTC'; SELECT 1"}, "unknown time zone"),
        ({"windowSize": "FORTNIGHT"}, "windowSize"),
        ({"from": MIDNIGHT, "to": MIDNIGHT}, "must be before to"),
        ({"from": "2026-03-01T00:00:00Z", "to": MIDNIGHT}, "must be before to"),
        ({"from": "1735689600"}, "RFC 3339"),
        ({"from": "2026-01-01T00:00:00Z' OR 1=1"}, "RFC 3339"),
        ({"from": MIDNIGHT, "to": "2150-01-01T00:00:00Z", "windowSize": "MINUTE"}, "windows"),
        ({"subject": ["s"] * 1 + [str(n) for n in range(100)]}, "more than 100"),
        ({"subject": "\0"}, "NUL"),
    ],
)
async def test_wrong_queries_say_why(api: Api, params: dict[str, Any], words: str) -> None:
    await api.meter()
    problem = assert_problem(await api.http.get(PATH, params=params), 400)
    assert words in str(problem["detail"])


@pytest.mark.parametrize(
    "body",
    [
        [],
        "x",
        {"from": 5},
        {"subject": "a"},
        {"unknown": 1},
        {"filterCustomerId": ["x"]},
        {"filterGroupBy": {"model": {"$regex": "x"}}},
        {"filterGroupBy": {"model": {"$in": ["x"] * 101}}},
        {"filterGroupBy": {"model": {"$like": "x\\"}}},
        {"filterGroupBy": {"model": 5}},
        {"windowSize": None, "windowTimeZone": 1},
    ],
)
async def test_wrong_bodies_are_refused(api: Api, body: Any) -> None:
    await api.meter(groupBy={"model": "$.model"})
    assert_problem(await api.http.post(PATH, json=body), 400)
    assert_problem(await api.http.post(PATH, content=b"{"), 400)


async def test_texts_of_callers_are_only_texts(api: Api) -> None:
    await api.meter(groupBy={"model": "$.model"})
    texts = ["a'b", 'a"b', "a\\b", "a\\'b", "a\nb\tc", "{p0:String}", "%", "_", "😀", "\\N", "NULL"]
    texts += ["'; DROP TABLE points; --", "a]', 'b", "\\x00", "--", "/*"]
    for text in texts:
        await api.send(json.dumps({"tokens": 1, "model": text}), subject=text)
    for text in texts:
        [row] = await api.rows(subject=text, groupBy="model")
        assert (row["subject"], row["groupBy"]["model"], row["value"]) == (text, text, 1)
        body = {"filterGroupBy": {"model": {"$in": [text, "other"]}}, "groupBy": ["subject"]}
        answer = (await api.http.post(PATH, json=body)).json()
        assert [row["subject"] for row in answer["data"]] == [text]
    assert len(await api.rows(groupBy="model")) == len(texts)
    assert (await api.http.get("/api/v1/meters/tokens/subjects")).json() == sorted(texts)


async def test_csv_is_safe_in_a_spreadsheet(api: Api) -> None:
    await api.meter(groupBy={"model": "$.model"})
    dangerous = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", 'a,"b"']
    for text in dangerous:
        await api.send(json.dumps({"tokens": -1.5, "model": text}), subject=text.strip())
    answer = await api.http.get(
        PATH, params={"groupBy": ["subject", "model"]}, headers={"accept": "text/csv;q=1, */*;q=0"}
    )
    head, *lines = csv.reader(io.StringIO(answer.text, newline=""))
    assert head == ["window_start", "window_end", "subject", "model", "value"]
    assert {line[4] for line in lines} == {"-1.5"}
    for line in lines:
        for cell in line[2:4]:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert {line[3].removeprefix("'") for line in lines} == set(dangerous)


async def test_every_aggregation(api: Api) -> None:
    expected = {
        "SUM": 6, "COUNT": 4, "AVG": 2, "MIN": 1, "MAX": 3, "UNIQUE_COUNT": 3, "LATEST": 2,
    }  # fmt: skip
    for name in expected:
        await api.meter(name.lower(), name)
    for minute, tokens in enumerate(("1", "3", "2")):
        await api.send(f'{{"tokens": {tokens}}}', time=f"2026-02-01T00:0{minute}:00Z")
    await api.send('{"tokens": null}', time=MIDNIGHT)
    for name, value in expected.items():
        [row] = await api.rows(name.lower())
        assert row["value"] == value, name


async def test_very_many_windows_of_different_lengths(api: Api) -> None:
    await api.meter(aggregation="COUNT")
    await api.send(time="2026-04-04T14:59:00Z")  # 01:59, before the clocks go back by half an hour
    await api.send(time="2026-04-04T15:10:00Z")  # 01:40, after
    span = {"from": "2018-01-01T00:00:00Z", "to": "2029-01-01T00:00:00Z"}
    for params in (span, {}):
        rows = await api.rows(windowSize="HOUR", windowTimeZone="Australia/Lord_Howe", **params)
        assert [(row["windowStart"], row["windowEnd"]) for row in rows] == [
            ("2026-04-04T14:00:00Z", "2026-04-04T15:00:00Z"),
            ("2026-04-04T15:00:00Z", "2026-04-04T15:30:00Z"),
        ]
    days = await api.rows(windowSize="DAY", windowTimeZone="Australia/Lord_Howe", **span)
    assert [row["value"] for row in days] == [2]
