"""A server as a process: where it listens, and how it stops."""

import json
import os
import socket
from pathlib import Path

import pytest

from meterline.server.serve import is_loopback
from tests.support.server import MeterlineServer, run_cli


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_what_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_without_a_key_it_refuses_other_machines_and_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data"
    arguments = ("serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", data)
    refused = run_cli(*arguments, cwd=tmp_path)
    assert refused.returncode == 1
    assert "refusing to listen on 0.0.0.0" in refused.stderr
    assert "meterline keys create" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_revoked_last_key_does_not_open_it_again(tmp_path: Path) -> None:
    data = ("--data-dir", tmp_path / "data")
    key = run_cli("keys", "create", "--quiet", *data, cwd=tmp_path).stdout.strip()
    with MeterlineServer(tmp_path / "data", arguments=["--host", "0.0.0.0"]) as server:
        url = "/api/v1/meters"
        with server.client() as client:
            assert client.get(url).status_code == 401
            good = {"authorization": f"Bearer {key}"}
            assert client.get(url, headers=good).status_code == 200
        assert server.stop() == 0
        assert key not in server.tail(1000)
    listed = json.loads(run_cli("keys", "list", "--json", *data, cwd=tmp_path).stdout)
    run_cli("keys", "revoke", listed[0]["id"], *data, cwd=tmp_path)
    with MeterlineServer(tmp_path / "data") as server, server.client() as client:
        assert client.get(url, headers=good).status_code == 401
        assert client.get(url).status_code == 401


def test_one_folder_has_one_server(tmp_path: Path) -> None:
    with MeterlineServer(tmp_path / "data") as server:
        second = run_cli("serve", "--port", "0", "--data-dir", server.data_dir, cwd=tmp_path)
        assert second.returncode == 1
        assert "in use by another process" in second.stderr
        # The first is not disturbed, and tools work beside it.
        doctor = run_cli("doctor", "--data-dir", server.data_dir, cwd=tmp_path)
        assert "a server runs on this folder" in " ".join(doctor.stdout.split())
        with server.client() as client:
            assert client.get("/readyz").status_code == 200


def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run_cli("serve", "--port", port, "--data-dir", tmp_path / "data", cwd=tmp_path)
    assert result.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}" in result.stderr


def test_a_bad_setting_is_one_sentence(tmp_path: Path) -> None:
    result = run_cli("serve", environment={"METERLINE_SERVER__PORT": "many"}, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith("error: server.port:")


def test_declared_meters_are_reconciled_with_a_printed_diff(tmp_path: Path) -> None:
    config = tmp_path / "meterline.yaml"
    tokens = "- {slug: tokens, aggregation: SUM, eventType: request, valueProperty: $.tokens}\n"
    config.write_text("meters:\n" + tokens)
    with MeterlineServer(tmp_path / "data") as server:
        assert "+ meter tokens: SUM of $.tokens over 'request'" in server.log
        server.stop()
        server.log.clear()
        server.restart()
        assert not any(line.startswith("+") for line in server.log)
        server.stop()
        config.write_text("meters:\n" + tokens.replace("$.tokens", "$.other"))
        server.restart()
        assert "! meter tokens" in server.log
        assert "    valueProperty: $.tokens -> $.other" in server.log
        with server.client() as client:
            (meter,) = client.get("/api/v1/meters").json()
            assert meter["valueProperty"] == "$.other"


def test_merges_wait_for_requests(tmp_path: Path) -> None:
    with MeterlineServer(tmp_path / "data") as server:
        nice = {
            name.read_text().strip(): os.getpriority(os.PRIO_PROCESS, int(name.parent.name))
            for name in Path(f"/proc/{server.pid}/task").glob("*/comm")
        }
    assert nice["MergeMutate"] > nice["python"]
