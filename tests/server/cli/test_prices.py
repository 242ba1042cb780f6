"""`meterline prices` and `meterline reprice` against a running server."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pricing.test_importers import LITELLM, MODELS_DEV
from tests.support.server import MeterlineServer, run_cli


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeterlineServer]:
    with MeterlineServer(tmp_path_factory.mktemp("prices") / "data") as running:
        yield running


def cli(server: MeterlineServer, *arguments: object, code: int = 0) -> str:
    done = run_cli(*arguments, "--url", server.url)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


def test_a_file_is_imported_once_and_then_followed(own: MeterlineServer, tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text(LITELLM)
    shown = cli(own, "prices", "import", file, "--format", "litellm", "--dry-run")
    assert "4 added" in shown and "input_cost_per_token_batches" in shown
    assert "no own prices" in cli(own, "prices", "list")
    assert "4 added" in cli(own, "prices", "import", file, "--format", "litellm")
    assert "4 unchanged" in cli(own, "prices", "import", file, "--format", "litellm")
    file.write_text(LITELLM.replace("2.5e-06", "2.6e-06", 1))
    assert "1 changed, 3 unchanged" in cli(own, "prices", "import", file, "--format", "litellm")
    listed = cli(own, "prices", "list")
    assert "gpt-4o" in listed and "2.6/1000000" in listed and "google" in listed
    file.write_text(MODELS_DEV)
    wrong = cli(own, "prices", "import", file, "--format", "litellm", code=1)
    assert "has no price in the format litellm" in wrong
    assert "there are litellm, models.dev" in cli(
        own, "prices", "import", file, "--format", "csv", code=1
    )
    some = ("--provider", "google", "--model", "gemini-*", "--dry-run")
    assert "1 added" in cli(own, "prices", "import", file, "--format", "models.dev", *some)


def test_reprice_reports_and_changes_nothing(own: MeterlineServer, tmp_path: Path) -> None:
    with own.client() as client:
        for n in range(3):
            body = {"context": "system", "modelId": "o3", "inputTokens": 1_000_000 * (n + 1)}
            assert client.post("/api/v1/usage", json=body).status_code == 201
        before = client.get("/api/v1/usage/summary?wait=true").json()
        assert before.pop("asOf")
        assert before["totalCostUsd"] == 12
        assert "give --dry-run" in cli(own, "reprice", code=1)
        assert "0 would change" in cli(own, "reprice", "--dry-run")
        file = tmp_path / "other.json"
        file.write_text(json.dumps([{"model": "o3", "rates": {"inputTokens": 2.25}}]))
        told = cli(own, "reprice", "--dry-run", "--prices", file)
        assert "catalogue → override" in told and "3 calls, 3 would change: 12 → 13.5" in told
        assert "0 calls" in cli(own, "reprice", "--dry-run", "--to", "2020-01-01T00:00:00Z")
        file.write_text(json.dumps([{"model": "o3", "rates": {"inputTokens": "dear"}}]))
        assert "price 0" in cli(own, "reprice", "--dry-run", "--prices", file, code=1)
        after = client.get("/api/v1/usage/summary?wait=true").json()
        assert after.pop("asOf")
        assert after == before
