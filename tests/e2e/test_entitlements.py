"""Entitlements through a real server: events in, access out."""

import itertools
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.support.meters import event, make_meter, send, total
from tests.support.server import MeterlineServer

NOW = datetime.now(UTC)  # noqa: TID251
_numbers = itertools.count()


@pytest.fixture(scope="module")
def client(server: MeterlineServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


class Sold:
    """A feature over a meter of its own, and a subject."""

    def __init__(self, client: httpx.Client, aggregation: str = "SUM", **feature: Any) -> None:
        self.client = client
        self.key = f"e{next(_numbers)}"
        self.subject = f"customer-{self.key}"
        self.path = f"/api/v1/subjects/{self.subject}/entitlements"
        self.sent = itertools.count()
        fields = {} if aggregation == "COUNT" else {"valueProperty": "$.n"}
        make_meter(
            client,
            self.key,
            aggregation,
            eventType=self.key,
            groupBy={"model": "$.model"},
            **fields,
        )
        self.call("POST", "/api/v1/features", {"key": self.key, "meterSlug": self.key, **feature})

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        response = self.client.request(method, path, json=body, **options)
        assert response.is_success, response.text
        return json.loads(response.text, parse_float=Decimal) if response.content else None

    def entitle(self, **fields: Any) -> Any:
        period = {"interval": "MONTH"}
        body = {"type": "metered", "featureKey": self.key, "usagePeriod": period, **fields}
        return self.call("POST", self.path, body)

    def grant(self, amount: Any, **fields: Any) -> Any:
        return self.call("POST", f"{self.path}/{self.key}/grants", {"amount": amount, **fields})

    def use(self, *values: Any, time: datetime | None = None, **data: Any) -> None:
        stamp = {} if time is None else {"time": time.isoformat()}
        send(
            self.client,
            [
                event(
                    f"{next(self.sent)}", type=self.key, subject=self.subject,
                    data={"n": value, **data}, **stamp,
                )
                for value in values
            ],
        )  # fmt: skip

    def value(self, **params: Any) -> Any:
        """The value with every event that was acknowledged before."""
        path = f"{self.path}/{self.key}/value"
        return self.call("GET", path, params={"wait": "true", **params})


def test_a_balance_agrees_with_its_meter_to_the_last_digit(client: httpx.Client) -> None:
    sold = Sold(client)
    sold.entitle()
    sold.grant(1_000_000)
    values = ["0.1", "123456.000000000000000001", "0.2", "99.9"]
    sold.use(*values[:2])
    sold.use(*values[2:])
    used = sum(map(Decimal, values))
    value = sold.value()
    assert value["usage"] == used == total(client, sold.key)
    assert value["balance"] == 1_000_000 - used
    assert value["hasAccess"] is True
    # The same, calculated and from what the sink keeps, with and without parameters.
    again = sold.call("GET", f"{sold.path}/{sold.key}/value")
    assert {**again, "asOf": ""} == {**value, "asOf": ""}
    access = sold.call("GET", f"/api/v1/subjects/{sold.subject}/access")
    assert access["entitlements"][sold.key]["balance"] == value["balance"]


def test_every_order_of_arrival_gives_the_same_balance(client: httpx.Client) -> None:
    days = [NOW - timedelta(days=n) for n in range(60, 0, -7)]
    balances = []
    for order in (days, days[::-1], days[::2] + days[1::2]):
        sold = Sold(client)
        start = (NOW - timedelta(days=70)).isoformat()
        sold.entitle(
            measureUsageFrom=start, usagePeriod={"interval": "P10D", "anchor": start},
            preserveOverageAtReset=True,
        )  # fmt: skip
        sold.grant(100, effectiveAt=start, maxRolloverAmount=100)
        for day in order:
            sold.use(days.index(day) + 1, time=day)
            sold.value()
        value = sold.value()
        told = sold.call("GET", f"{sold.path}/{sold.key}/history", params={"from": start})
        used = sum(window["usage"] for window in told["windowedHistory"])
        assert used == sum(range(1, len(days) + 1))
        balances.append((value["balance"], value["overage"], value["usage"]))
    assert len(set(balances)) == 1
    assert balances[0][0] == 100 - sum(range(1, len(days) + 1))


def test_filters_choose_what_counts(client: httpx.Client) -> None:
    sold = Sold(client, "COUNT", meterGroupByFilters={"model": "gpt-4"})
    sold.entitle(issueAfterReset=100)
    sold.use(1, model="gpt-4")
    sold.use(1, model="gpt-3")
    value = sold.value()
    assert (value["balance"], value["usage"]) == (99, 1)
    assert value["totalAvailableGrantAmount"] == 100
    sold.call("POST", f"{sold.path}/{sold.key}/reset")
    assert sold.value()["usage"] == 0


@pytest.mark.parametrize(
    ("aggregation", "values", "usage"),
    [("UNIQUE_COUNT", ["a", "b", "a"], 2), ("MAX", [3, 9, 4], 9), ("LATEST", [3, 9, 4], 4)],
)
def test_every_kind_of_meter(
    client: httpx.Client, aggregation: str, values: list[Any], usage: int
) -> None:
    sold = Sold(client, aggregation)
    sold.entitle()
    sold.grant(100)
    for one in values:
        sold.use(one)
    value = sold.value()
    assert (value["usage"], value["balance"]) == (usage, 100 - usage)


def test_what_a_feature_needs_stays(client: httpx.Client) -> None:
    sold = Sold(client, meterGroupByFilters={"model": "a"})
    refused = client.delete(f"/api/v1/meters/{sold.key}")
    assert (refused.status_code, refused.json()["title"]) == (409, "Conflict")
    assert f"the feature {sold.key} uses it" in refused.json()["detail"]
    refused = client.put(f"/api/v1/meters/{sold.key}", json={"groupBy": {}})
    assert refused.status_code == 409
    assert "filters by its groupBy key model" in refused.json()["detail"]
    sold.call("DELETE", f"/api/v1/features/{sold.key}")
    assert client.delete(f"/api/v1/meters/{sold.key}").status_code == 204


def test_of_many_creates_at_once_one_wins(client: httpx.Client) -> None:
    sold = Sold(client)
    body = {"type": "boolean", "featureKey": sold.key}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post(sold.path, json=body), range(8)))
    assert sorted(one.status_code for one in answers) == [201] + [409] * 7
    winner = next(one.json()["id"] for one in answers if one.status_code == 201)
    conflicts = {one.json()["extensions"]["conflictingEntityId"] for one in answers if one.is_error}
    assert conflicts == {winner}


def test_changes_show_in_the_next_answer(client: httpx.Client) -> None:
    sold = Sold(client)
    made = sold.entitle()
    path = f"{sold.path}/{sold.key}/value"
    seen = []
    for step in range(3):
        seen.append(sold.call("GET", path)["balance"])
        grant = sold.grant(10 + step)
    seen.append(sold.call("GET", path)["balance"])
    sold.call("DELETE", f"/api/v1/grants/{grant['id']}")
    seen.append(sold.call("GET", path)["balance"])
    sold.call("POST", f"{sold.path}/{sold.key}/reset", {"retainAnchor": True})
    seen.append(sold.call("GET", path)["balance"])
    assert seen == [0, 10, 21, 33, 21, 0]
    sold.call("DELETE", f"{sold.path}/{made['id']}")
    assert sold.call("GET", path) == {"hasAccess": False}
    second = sold.entitle(issueAfterReset=5)
    assert second["id"] != made["id"]
    assert sold.call("GET", path)["balance"] == 5
