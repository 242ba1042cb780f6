"""The commands that need no server, or that talk to one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from meterline.kernel.errors import MeterlineError, ValidationError
from meterline.server.cli import app, http
from meterline.version import __version__

Answer = Callable[[httpx.Request], httpx.Response]


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("METERLINE_URL", "METERLINE_API_KEY", "METERLINE_CONFIG"):
        monkeypatch.delenv(name, raising=False)


COMMANDS: tuple[list[str], ...] = (
    [], ["serve"], ["import"], ["query"], ["meters"], ["meters", "list"], ["meters", "diff"],
    ["meters", "apply"], ["keys"], ["keys", "create"], ["keys", "list"], ["keys", "revoke"],
    ["migrate"], ["doctor"], ["demo"],
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_the_version_is_shown() -> None:
    assert run("--version").output == f"meterline {__version__}\n"


def test_a_key_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    created = run("keys", "create", "--scope", "read", "--name", "dashboard", "--quiet")
    text = created.stdout.strip()
    assert text.startswith("ml_")
    (key,) = json.loads(run("keys", "list", "--json").stdout)
    assert (key["scopes"], key["name"], key["namespace"]) == ("read", "dashboard", "default")
    secret = text.rpartition("_")[2].encode()
    for file in (tmp_path / "data").rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes()


def test_a_revoked_key_is_gone_from_the_list() -> None:
    run("keys", "create", "--namespace", "acme")
    (key,) = json.loads(run("keys", "list", "--json", "--namespace", "acme").stdout)
    run("keys", "revoke", key["id"])
    assert json.loads(run("keys", "list", "--json").stdout) == []
    with pytest.raises(MeterlineError):
        run("keys", "revoke", key["id"])


def test_a_scope_must_exist() -> None:
    with pytest.raises(ValidationError, match="scope"):
        run("keys", "create", "--scope", "everything")


def test_migrate_is_done_once() -> None:
    assert "applied database" in run("migrate").output
    assert "nothing to do" in run("migrate").output


def test_doctor_finds_nothing_wrong_in_a_new_folder() -> None:
    result = run("doctor", "--set", "server.port=0")
    assert result.exit_code == 0
    for name in ("python", "data folder", "disk space", "disk sync", "event log", "access"):
        assert name in result.output
    assert not Path("data").exists()


def test_doctor_checks_what_is_stored() -> None:
    result = run("doctor", "--store", "--set", "server.port=0")
    assert result.exit_code == 0
    assert "its tables agree, over 0 series" in result.output


def test_doctor_says_why_a_server_would_refuse_to_start() -> None:
    result = run("doctor", "--set", "server.host=0.0.0.0", "--set", "server.port=0")
    assert result.exit_code == 1
    assert "meterline keys create" in result.output


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """A pretended server with one meter; gives the requests that it got."""
    requests: list[httpx.Request] = []
    meter = {"slug": "tokens", "aggregation": "SUM", "eventType": "request",
             "valueProperty": "$.tokens", "groupBy": {"model": "$.model"}}  # fmt: skip
    row = {"value": 0, "windowStart": "2026-01-01T00:00:00Z", "windowEnd": "2026-01-02T00:00:00Z",
           "subject": None, "groupBy": {"model": "large"}}  # fmt: skip

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        if request.url.path == "/api/v1/meters" and request.method == "GET":
            return httpx.Response(200, json=[meter])
        if request.url.path.endswith("/query"):
            body = json.dumps({"data": [row]}).replace('"value": 0', f'"value": {EXACT}')
            return httpx.Response(200, text=body, headers={"content-type": "application/json"})
        if request.url.path == "/api/v1/meters":
            return httpx.Response(201, json={})
        problem = {"title": "Not Found", "status": 404, "detail": "there is no such meter"}
        return httpx.Response(404, json=problem)

    original = http.Api.__init__

    def pretend(self: http.Api, url: str, api_key: str | None, transport: Any = None) -> None:
        original(self, url, api_key, httpx.MockTransport(answer))

    monkeypatch.setattr(http.Api, "__init__", pretend)
    return requests


EXACT = "12345678901234567890.123456789012345678"


def test_query_asks_what_the_flags_say_and_keeps_every_digit(server: list[httpx.Request]) -> None:
    result = run(
        "query", "tokens", "--window-size", "day", "--time-zone", "Europe/Berlin", "--subject",
        "a", "--subject", "b", "--group-by", "model", "--filter", "model=large", "--from",
        "2026-01-01T00:00:00Z", "--api-key", "ml_key",
    )  # fmt: skip
    assert "12,345,678,901,234,567,890.123456789012345678" in result.stdout
    (request,) = server
    assert request.headers["authorization"] == "Bearer ml_key"
    assert list(request.url.params.multi_items()) == [
        ("from", "2026-01-01T00:00:00Z"),
        ("windowSize", "DAY"),
        ("windowTimeZone", "Europe/Berlin"),
        ("subject", "a"),
        ("subject", "b"),
        ("groupBy", "model"),
        ("filterGroupBy[model]", "large"),
    ]


def test_query_prints_the_answer_as_it_is(server: list[httpx.Request]) -> None:
    assert EXACT in run("query", "tokens", "--format", "json").stdout
    run("query", "tokens", "--format", "csv")
    assert server[-1].headers["accept"] == "text/csv"


def test_a_refusal_is_told_in_the_servers_words(server: list[httpx.Request]) -> None:
    with pytest.raises(MeterlineError, match="Not Found: there is no such meter"):
        http.Api("http://x", None).call("GET", "/api/v1/meters/none")


def test_no_server_is_said_so() -> None:
    with pytest.raises(MeterlineError, match="Is the server running"):
        run("query", "tokens", "--url", "http://127.0.0.1:9")


def test_meters_are_compared_and_applied(server: list[httpx.Request]) -> None:
    assert "tokens" in run("meters", "list").output
    Path("meterline.yaml").write_text(
        "meters:\n"
        "- {slug: tokens, aggregation: SUM, eventType: request, valueProperty: $.tokens,"
        " groupBy: {model: $.model}}\n"
    )
    assert "nothing to change" in run("meters", "diff").output
    with Path("meterline.yaml").open("a") as file:
        file.write("- {slug: calls, aggregation: COUNT, eventType: request}\n")
    different = run("meters", "diff")
    assert (different.exit_code, different.output) == (
        1,
        "+ meter calls: COUNT over 'request'\n",
    )
    run("meters", "apply")
    assert server[-1].method == "POST"
    assert json.loads(server[-1].content)["slug"] == "calls"
