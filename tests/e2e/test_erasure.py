"""A subject that is deleted with its data, over a whole server."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.server import MeterlineServer, eventually

CREDITS = "/api/v1/subjects/{}/credits"


@pytest.fixture(scope="module")
def client(server: MeterlineServer) -> Iterator[httpx.Client]:
    with server.client() as one:
        yield one


def _give(client: httpx.Client, subject: str, amount: int) -> None:
    client.post(CREDITS.format(subject), json={"amount": amount}).raise_for_status()


def _reserve(client: httpx.Client, subject: str, amount: int) -> httpx.Response:
    return client.post("/api/v1/reservations", json={"accountId": subject, "amount": amount})


def _spend(client: httpx.Client, subject: str, amount: int) -> None:
    reserved = _reserve(client, subject, amount).raise_for_status().json()
    path = f"/api/v1/reservations/{reserved['transactionId']}/confirm"
    client.post(path).raise_for_status()
    value = f"/api/v1/subjects/{subject}/entitlements/credits/value"
    eventually(lambda: client.get(value).json()["usage"] == amount, "it is counted")


@pytest.mark.parametrize("with_a_plan", [False, True])
def test_spent_credits_do_not_come_back(client: httpx.Client, with_a_plan: bool) -> None:
    subject = f"erased-{with_a_plan}"
    if with_a_plan:
        allocation = {"interval": "MONTH", "amount": 100}
        plan = {"key": "erasure", "creditAllocation": allocation}
        client.post("/api/v1/plans", json=plan).raise_for_status()
        given = {"plan": "erasure"}
        client.put(f"/api/v1/subjects/{subject}/plan", json=given).raise_for_status()
    else:
        _give(client, subject, 100)
    _spend(client, subject, 30)
    address = f"/api/v1/subjects/{subject}"
    client.post("/api/v1/subjects", json=[{"key": subject}]).raise_for_status()
    # Without its usage, nothing but the record goes.
    assert client.delete(address).status_code == 204
    assert _told(client, subject)["balance"] == 70

    assert client.delete(address, params={"purgeUsage": "true"}).status_code == 204
    assert client.get(CREDITS.format(subject)).status_code == 404
    assert client.get(f"{address}/plan").status_code == 404
    assert client.get(f"{address}/entitlements").json() == []
    # A subject may come again: it begins with nothing.
    assert _reserve(client, subject, 1).status_code == 402
    _give(client, subject, 5)
    found = _told(client, subject)
    assert found["balance"] == 5
    assert [(one["kind"], one["amount"]) for one in found["items"]] == [("grant", 5)]
    _spend(client, subject, 3)
    assert _told(client, subject)["balance"] == 2


def _told(client: httpx.Client, subject: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(CREDITS.format(subject)).raise_for_status().json()
    return found
