"""A real trace as usage: what is left of a grant is the grant less the exact sum, in any order.

The trace lies beside the repository, in `../shared/data`; without it the test is skipped.
"""

import csv
import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.support.meters import make_meter
from tests.support.server import MeterlineServer, run_cli
from tests.support.shared import shared_path

Row = dict[str, str]

_SUBJECTS = ("code", "conv")
_MONTHLY = 50_000_000
_LASTING = Decimal("99999999.25")
_ORDERS: dict[str, Callable[[list[Row]], list[Row]]] = {
    "as_it_was": lambda rows: rows,
    "backwards": lambda rows: rows[::-1],
    "shuffled": lambda rows: Random(7).sample(rows, len(rows)),
}


def trace() -> list[Row]:
    """The requests, each with its tokens in and out added up."""
    with gzip.open(shared_path("data/azure_llm_2023.csv.gz"), "rt") as file:
        return [
            {**row, "tokens": str(int(row["context_tokens"]) + int(row["generated_tokens"]))}
            for row in csv.DictReader(file)
        ]


def write(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def get(client: httpx.Client, path: str, **params: str) -> dict[str, Any]:
    response = client.get(path, params={"wait": "true", **params})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = json.loads(response.text, parse_float=Decimal)
    return answer


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    response = client.post(path, json=body)
    assert response.status_code == 201, response.text


def entitle(client: httpx.Client, name: str, *, lasting: bool) -> None:
    """Both subjects have a grant: of each month, or one that rolls over whole, for ever."""
    post(client, "/api/v1/features", {"key": name, "meterSlug": name.removesuffix("_kept")})
    monthly = {
        "type": "metered",
        "featureKey": name,
        "usagePeriod": {"interval": "MONTH", "anchor": "2023-11-01T00:00:00Z"},
        "measureUsageFrom": "2023-11-01T00:00:00Z",
    }
    for subject in _SUBJECTS:
        path = f"/api/v1/subjects/{subject}/entitlements"
        if not lasting:
            post(client, path, {**monthly, "issueAfterReset": _MONTHLY})
            continue
        post(client, path, monthly)
        amount = float(_LASTING)  # which a double holds exactly
        grant = {
            "amount": amount,
            "maxRolloverAmount": amount,
            "effectiveAt": "2023-11-01T00:00:00Z",
            "expiration": {"duration": "P100Y"},
        }
        post(client, f"{path}/{name}/grants", grant)


@pytest.mark.parametrize("order", _ORDERS)
def test_azure_tokens_burn_a_grant(server: MeterlineServer, tmp_path: Path, order: str) -> None:
    expected = json.loads(shared_path("data/azure_llm_2023.expected.json").read_bytes())
    name = f"azure_{order}"
    path = write(tmp_path / "trace.csv", _ORDERS[order](trace()))
    with server.client() as client:
        make_meter(client, name, "SUM", eventType=name, valueProperty="$.tokens")
        # Half of them are entitled before there is usage, half after it.
        entitle(client, name, lasting=False)
        done = run_cli(
            *("import", path, "--url", server.url, "--type", name, "--source", name),
            *("--subject-column", "service", "--time-column", "timestamp"),
            *("--id-columns", "service,row", "--data-columns", "tokens"),
            environment={"XDG_STATE_HOME": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        entitle(client, f"{name}_kept", lasting=True)
        for subject in _SUBJECTS:
            check(client, name, subject, expected[subject]["sum_total"])


def check(client: httpx.Client, name: str, subject: str, total: int) -> None:
    path = f"/api/v1/subjects/{subject}/entitlements"
    month = get(client, f"{path}/{name}/value", time="2023-11-30T23:59:59.999Z")
    assert month["usage"] == total
    assert (month["balance"], month["overage"]) == (_MONTHLY - total, 0)
    # A month is over, and its grant with it; what rolls over whole is less by it for ever.
    assert get(client, f"{path}/{name}/value")["balance"] == _MONTHLY
    kept = get(client, f"{path}/{name}_kept/value")
    assert (kept["usage"], kept["balance"]) == (0, _LASTING - total)

    span = {"from": "2023-11-01T00:00:00Z", "to": "2023-12-01T00:00:00Z"}
    told = get(client, f"{path}/{name}/history", windowSize="HOUR", **span)
    assert sum(window["usage"] for window in told["windowedHistory"]) == total
    assert sum(segment["usage"] for segment in told["burndownHistory"]) == total
