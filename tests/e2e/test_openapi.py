"""schemathesis reads the OpenAPI document of a running server and finds nothing that it breaks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import MeterlineServer, run_cli

_CONFIG = Path(__file__).parents[2] / "schemathesis.toml"
_SEEDS = tuple(map(int, os.environ.get("METERLINE_SCHEMATHESIS_SEEDS", "1").split(",")))
_ENTITLEMENTS = "/(entitlements|features|grants|access|notification)"
_EXAMPLES = int(os.environ.get("METERLINE_SCHEMATHESIS_EXAMPLES", "15"))


@pytest.mark.parametrize("seed", _SEEDS)
@pytest.mark.parametrize("choice", ["exclude", "include"], ids=["metering", "entitlements"])
def test_schemathesis_finds_no_failure(tmp_path: Path, choice: str, seed: int) -> None:
    data = tmp_path / "data"
    # With a key of its own: a key made through the API would close an open server half-way.
    made = run_cli("keys", "create", "--quiet", "--scope", "admin", "--data-dir", data)
    assert made.returncode == 0, made.stderr
    with MeterlineServer(data) as server:
        command = [sys.executable, "-c", "from schemathesis.cli import schemathesis as s; s()"]
        command += ["--config-file", str(_CONFIG)]
        command += ["run", f"{server.url}/openapi.json"]
        command += [f"--{choice}-path-regex", _ENTITLEMENTS, "--seed", str(seed)]
        command += ["--header", f"Authorization: Bearer {made.stdout.strip()}"]
        command += ["--max-examples", str(_EXAMPLES), "--request-timeout", "20"]
        command += ["--generation-database", "none", "--no-color", "--continue-on-failure"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        print(f"seed {seed}\n{done.stdout[-20_000:]}{done.stderr}")
        assert done.returncode == 0, "see the output of schemathesis above"
        with server.client() as client:
            assert client.get("/readyz").status_code == 200
