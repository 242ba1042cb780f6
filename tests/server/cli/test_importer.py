"""The import against a server that is scripted to fail: every row counts once, whatever happens."""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from meterline.server.cli.importer import import_command
from tests.support.event_stub import Answer, Event, EventStub, Script, event_stub, problem
from tests.support.shared import shared_path

ROWS = 5000
CSV_OPTIONS = ["--type", "t", "--source", "s", "--subject-column", "who", "--id-columns", "n"]


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventStub]:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with event_stub() as running:
        yield running


@pytest.fixture
def usage(tmp_path: Path) -> Path:
    path = tmp_path / "usage.csv"
    rows = "".join(f"{n},user-{n % 7},{n * 3}\n" for n in range(ROWS))
    path.write_text(f"n,who,tokens\n{rows}")
    return path


def run_import(stub: EventStub, *arguments: object) -> Result:
    app = typer.Typer()
    app.command()(import_command)
    options = ["--url", stub.url, *map(str, arguments)]
    return CliRunner().invoke(app, options)


def assert_complete(stub: EventStub) -> None:
    assert len(stub.events) == ROWS
    assert stub.sum("tokens") == sum(n * 3 for n in range(ROWS))


def test_twice_counts_once(stub: EventStub, usage: Path) -> None:
    for _ in range(2):
        result = run_import(stub, usage, *CSV_OPTIONS)
        assert result.exit_code == 0, result.output
    assert stub.received == 2 * ROWS
    assert_complete(stub)
    assert stub.connections <= 8  # they are kept alive


def test_a_compressed_copy_is_the_same_rows(stub: EventStub, usage: Path) -> None:
    packed = usage.with_name("usage.csv.gz")
    packed.write_bytes(gzip.compress(usage.read_bytes()))
    for path in (usage, packed):
        assert run_import(stub, path, "--type", "t", "--subject", "x").exit_code == 0
    assert len(stub.events) == ROWS


def test_requests_carry_the_key_and_the_batch_media_type(stub: EventStub, usage: Path) -> None:
    assert run_import(stub, usage, *CSV_OPTIONS, "--api-key", "k").exit_code == 0
    assert stub.headers[0]["authorization"] == "Bearer k"
    assert stub.headers[0]["content-type"] == "application/cloudevents-batch+json"


def test_a_server_that_is_away_or_busy_is_tried_again(stub: EventStub, usage: Path) -> None:
    answers = {1: (503, b""), 2: (0, b""), 3: (429, b""), 5: (502, b"")}
    stub.script = lambda number, events: answers.get(number)
    result = run_import(stub, usage, *CSV_OPTIONS)
    assert result.exit_code == 0, result.output
    assert_complete(stub)


def test_an_answer_that_is_lost_does_not_count_twice(stub: EventStub, usage: Path) -> None:
    def lose(number: int, events: list[Event]) -> Answer | None:
        for event in events:
            stub.events.setdefault((event["source"], event["id"]), event)
        return (0, b"") if number % 3 == 0 else None

    stub.script = lose
    assert run_import(stub, usage, *CSV_OPTIONS).exit_code == 0
    assert_complete(stub)


def test_it_gives_up_in_the_end_and_goes_on_later(stub: EventStub, usage: Path) -> None:
    stub.script = lambda number, events: (503, b"") if number > 2 else None
    options = [*CSV_OPTIONS, "--concurrency", 1, "--batch-size", 1000, "--give-up-after", 0]
    result = run_import(stub, usage, *options)
    assert result.exit_code == 1
    assert "stopped after row 2,000: 503" in result.output
    stub.script = None
    stub.behind = 3
    result = run_import(stub, usage, *options[:-1], 10)
    assert result.exit_code == 0
    assert "going on after row 2,000" in result.output
    assert stub.received == ROWS
    assert_complete(stub)


def test_a_server_that_forgot_gets_everything(stub: EventStub, usage: Path) -> None:
    stub.script = lambda number, events: (503, b"") if number > 2 else None
    options = [*CSV_OPTIONS, "--concurrency", 1, "--give-up-after", 0]
    assert run_import(stub, usage, *options).exit_code == 1
    stub.script = None
    stub.events.clear()
    assert run_import(stub, usage, *options).exit_code == 0
    assert_complete(stub)


def test_other_options_or_another_beginning_start_over(stub: EventStub, usage: Path) -> None:
    stub.script = lambda number, events: (503, b"") if number == 3 else None
    base = ["--concurrency", 1, "--give-up-after", 0]
    assert run_import(stub, usage, *CSV_OPTIONS, *base).exit_code == 1
    other = run_import(stub, usage, *CSV_OPTIONS, *base, "--data-columns", "tokens", "--restart")
    assert "going on" not in other.output
    usage.write_text(usage.read_text().replace("user-0", "user-9"))
    changed = run_import(stub, usage, *CSV_OPTIONS, *base)
    assert "going on" not in changed.output


def test_a_bad_row_stops_the_import_with_its_line(stub: EventStub, usage: Path) -> None:
    lines = usage.read_text().splitlines()
    lines[3000] = "2999,user,1,extra"
    usage.write_text("\n".join(lines))
    result = run_import(stub, usage, *CSV_OPTIONS)
    assert result.exit_code == 1
    assert "line 3001: 4 cells, but the header has 3" in result.output
    assert len(stub.events) == 2999


def test_a_refused_row_stops_the_import_with_its_line(stub: EventStub, usage: Path) -> None:
    stub.script = refuse_ids("1500")
    result = run_import(stub, usage, *CSV_OPTIONS, "--concurrency", 1)
    assert result.exit_code == 1
    assert "line 1502: subject: no 1500" in result.output
    assert len(stub.events) == 1000


def test_bad_rows_are_left_out_and_reported(stub: EventStub, usage: Path, tmp_path: Path) -> None:
    usage.write_bytes(usage.read_bytes() + b"9999,caf\xe9,1\n9998,x\n")
    stub.script = refuse_ids("10", "11", "4999")
    report = tmp_path / "bad.ndjson"
    result = run_import(stub, usage, *CSV_OPTIONS, "--on-error", "skip", "--errors-to", report)
    assert result.exit_code == 0, result.output
    assert "5 bad rows left out" in result.output
    assert len(stub.events) == ROWS - 3
    lines = [json.loads(line)["line"] for line in report.read_text().splitlines()]
    assert lines == [12, 13, 5001, 5002, 5003]


def test_a_refusal_without_places_is_narrowed_down(stub: EventStub, usage: Path) -> None:
    def blunt(number: int, events: list[Event]) -> Answer | None:
        return (400, b"{}") if any(event["id"] == "777" for event in events) else None

    stub.script = blunt
    result = run_import(stub, usage, *CSV_OPTIONS, "--on-error", "skip")
    assert result.exit_code == 0, result.output
    assert "line 779: 400 Bad Request" in result.output
    assert len(stub.events) == ROWS - 1


def test_a_batch_that_is_too_large_is_halved(stub: EventStub, usage: Path) -> None:
    stub.script = lambda number, events: (413, b"") if len(events) > 300 else None
    assert run_import(stub, usage, *CSV_OPTIONS).exit_code == 0
    assert_complete(stub)


def test_a_refused_key_ends_the_import_at_once(stub: EventStub, usage: Path) -> None:
    stub.script = lambda number, events: (401, b'{"detail":"unknown key"}')
    result = run_import(stub, usage, *CSV_OPTIONS)
    assert result.exit_code == 1
    assert "401 Unauthorized: unknown key" in result.output
    assert stub.requests <= 8


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "need a --type"),
        (["--subject-column", "who"], "--type"),
        (["--type", "t", "--time-column", "when"], "no column 'when'"),
        (["--type", "t", "--time-format", "sometimes"], "--time-format"),
        (["--type", "t", "--subject", "a", "--subject-column", "who"], "not both"),
    ],
)
def test_wrong_options_are_explained(
    stub: EventStub, usage: Path, options: list[str], said: str
) -> None:
    result = run_import(stub, usage, *options)
    assert result.exit_code != 0
    assert said in result.output
    assert stub.requests == 0


def test_a_cut_off_file_is_told(stub: EventStub, tmp_path: Path, usage: Path) -> None:
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(usage.read_bytes())[:-2000])
    result = run_import(stub, path, *CSV_OPTIONS)
    assert result.exit_code == 1
    assert "stopped after row" in result.output


@pytest.mark.parametrize("name", ["events.ndjson", "events.json"])
def test_cloudevents_go_through_verbatim(stub: EventStub, tmp_path: Path, name: str) -> None:
    event = '{"id":"1","source":"s","type":"t","data":{"n":1.10}}'
    path = tmp_path / name
    path.write_text(event if name.endswith("ndjson") else f"[{event}]")
    assert run_import(stub, path).exit_code == 0
    assert stub.events[("s", "1")]["data"] == {"n": "1.10"}


def test_the_azure_trace_arrives_whole(stub: EventStub) -> None:
    path = shared_path("data/azure_llm_2023.csv.gz")
    expected = json.loads(shared_path("data/azure_llm_2023.expected.json").read_bytes())["all"]
    columns = ["--subject-column", "service", "--time-column", "timestamp"]
    ids = ["--id-columns", "service,row"]
    result = run_import(stub, path, "--type", "llm.request", *columns, *ids)
    assert result.exit_code == 0, result.output
    assert len(stub.events) == expected["count"]
    assert stub.sum("context_tokens") == expected["sum_context"]
    assert stub.sum("generated_tokens") == expected["sum_generated"]


def test_killed_half_way_and_run_again(stub: EventStub, usage: Path) -> None:
    code = (
        "import typer; from meterline.server.cli.importer import import_command as c; typer.run(c)"
    )
    command = [sys.executable, "-c", code, str(usage), "--url", stub.url, *CSV_OPTIONS]
    command += ["--batch-size", "100", "--concurrency", "2"]
    victim: list[subprocess.Popen[bytes]] = []

    def kill(number: int, events: list[Event]) -> Answer | None:
        if number == 20:
            victim[0].kill()
        return None

    stub.script = kill
    victim.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
    assert victim[0].wait() < 0
    assert 0 < len(stub.events) < ROWS
    stub.script = None
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    assert_complete(stub)


def refuse_ids(*ids: str) -> Script:
    def script(number: int, events: list[Event]) -> Answer | None:
        faults = [
            (at, "subject", f"no {event['id']}")
            for at, event in enumerate(events)
            if event["id"] in ids
        ]
        return problem(400, *faults) if faults else None

    return script
