"""schemathesis reads the OpenAPI document of a running server and finds nothing that it breaks."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.server import MeterlineServer, eventually, run_cli

_CONFIG = Path(__file__).parents[2] / "schemathesis.toml"
_SEEDS = tuple(map(int, os.environ.get("METERLINE_SCHEMATHESIS_SEEDS", "1").split(",")))
_ENTITLEMENTS = "/(entitlements|features|grants|access|notification)"
# What the examples in the document name. Each is said in a request of its own, in this order.
_THERE: tuple[tuple[str, str, dict[str, object]], ...] = (
    (
        "POST",
        "meters",
        {
            "slug": "tokens",
            "aggregation": "SUM",
            "eventType": "llm.tokens",
            "valueProperty": "$.tokens",
            "groupBy": {"model": "$.model"},
        },
    ),
    ("POST", "plans", {"key": "pro", "creditAllocation": {"interval": "MONTH", "amount": 10}}),
    ("PUT", "subjects/customer-1/plan", {"plan": "pro"}),
    ("POST", "subjects/customer-1/credits", {"amount": 1000}),
    ("POST", "subjects/customer-1/entitlements/credits/holds", {"id": "hold-1", "amount": 1}),
    ("POST", "reservations", {"accountId": "customer-1", "id": "reservation-1", "amount": 1}),
    ("POST", "credit-rates", {"model": "gpt-4o", "inputRate": 1, "outputRate": 2}),
    (
        "POST",
        "usage-transactions",
        {"userId": "customer-1", "model": "gpt-4o", "transactionId": "transaction-1"},
    ),
)
_EXAMPLES = int(os.environ.get("METERLINE_SCHEMATHESIS_EXAMPLES", "6"))


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("choice", ["exclude", "include"], ids=["metering", "entitlements"])
def test_schemathesis_finds_no_failure(tmp_path: Path, choice: str, seed: int) -> None:
    data = tmp_path / "data"
    # With a key of its own: a key made through the API would close an open server half-way.
    made = run_cli("keys", "create", "--quiet", "--scope", "admin", "--data-dir", data)
    assert made.returncode == 0, made.stderr
    authorization = f"Bearer {made.stdout.strip()}"
    with MeterlineServer(data) as server:
        with server.client() as client:
            _make_what_examples_name(client, authorization)
        command = [sys.executable, "-c", "from schemathesis.cli import schemathesis as s; s()"]
        command += ["--config-file", str(_CONFIG)]
        command += ["run", f"{server.url}/openapi.json"]
        command += [f"--{choice}-path-regex", _ENTITLEMENTS, "--seed", str(seed)]
        command += ["--header", f"Authorization: {authorization}"]
        command += ["--max-examples", str(_EXAMPLES), "--request-timeout", "20"]
        command += ["--generation-database", "none", "--no-color", "--continue-on-failure"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        print(f"seed {seed}\n{done.stdout[-20_000:]}{done.stderr}")
        assert done.returncode == 0, "see the output of schemathesis above"
        with server.client() as client:
            assert client.get("/readyz").status_code == 200


def _make_what_examples_name(client: httpx.Client, authorization: str) -> None:
    for method, path, body in _THERE:
        answers: list[httpx.Response] = []

        def done(
            method: str = method,
            path: str = path,
            body: dict[str, object] = body,
            answers: list[httpx.Response] = answers,
        ) -> bool:
            headers = {"authorization": authorization}
            answers.append(client.request(method, f"/api/v1/{path}", json=body, headers=headers))
            # A new balance is not known until its meter is filled.
            return answers[-1].status_code != 503

        eventually(done, path)
        assert answers[-1].is_success, answers[-1].text
