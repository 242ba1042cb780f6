"""The CloudEvents cases over HTTP get the specification's verdict, and never a 5xx."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.meters import event
from tests.support.server import MeterlineServer
from tests.support.shared import shared_path

Case = dict[str, Any]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    data = tmp_path_factory.mktemp("cases") / "data"
    # The specification has no required subject.
    environment = {"METERLINE_INGEST__REQUIRE_SUBJECT": "false"}
    with MeterlineServer(data, environment=environment) as server, server.client() as client:
        yield client


def body(case: Case) -> bytes:
    if "body_b64" in case:
        return base64.b64decode(case["body_b64"])
    if "gen" not in case:
        return str(case.get("body") or "").encode("utf-8", "surrogatepass")
    [(kind, size)] = case["gen"].items()
    members = {f"m{number}": 0 for number in range(size)}
    data = "[" * size + "]" * size if kind == "nest_data" else json.dumps(members)
    text = json.dumps(event("big", data="DATA"))
    return text.replace('"DATA"', data).encode()


def test_every_case_over_http(client: httpx.Client) -> None:
    cases = json.loads(shared_path("cases/cloudevents.json").read_bytes())["cases"]
    wrong: list[str] = []
    for case in cases:
        if case["mode"].startswith("kafka"):
            continue
        headers = [(name.encode(), value.encode()) for name, value in case["headers"]]
        response = client.post("/api/v1/events", content=body(case), headers=headers)
        verdicts = {
            "valid": response.status_code == 204,
            "invalid": 400 <= response.status_code < 500,
            "policy": response.status_code < 500,
        }
        told = response.headers.get("content-type") in (None, "application/problem+json")
        if not (verdicts[case["verdict"]] and told):
            wrong.append(f"{case['id']}: {case['verdict']}, got {response.status_code}")
    assert wrong == []
    assert client.post("/api/v1/events", json=event("after")).status_code == 204
