"""Real traces go in by file and over HTTP, and every published figure comes out, digit by digit.

The traces lie beside the repository, in `../shared/data`; without them these tests are skipped.
"""

import csv
import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.support.meters import batches_of, make_meter, rows, send, settle, total
from tests.support.server import MeterlineServer, eventually, run_cli, running_cli
from tests.support.shared import shared_path

Figures = dict[str, Any]

AZURE_OPTIONS = [
    *("--subject-column", "service", "--time-column", "timestamp"),
    *("--id-columns", "service,row", "--data-columns", "context_tokens,generated_tokens"),
]


@pytest.fixture(scope="module")
def azure() -> tuple[Path, Figures]:
    path = shared_path("data/azure_llm_2023.csv.gz")
    return path, json.loads(shared_path("data/azure_llm_2023.expected.json").read_bytes())


@pytest.fixture(scope="module")
def client(server: MeterlineServer) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def import_file(server: MeterlineServer, path: Path, *options: str) -> None:
    state = {"XDG_STATE_HOME": str(server.data_dir.parent / "state")}
    done = run_cli("import", path, "--url", server.url, *options, environment=state)
    assert done.returncode == 0, done.stderr


def kill_an_import_half_way(
    server: MeterlineServer, client: httpx.Client, path: Path, *options: str
) -> None:
    with running_cli("import", path, "--url", server.url, *options) as process:
        eventually(lambda: (total(client, "azi_count") or 0) > 1000, "some rows are counted")
        process.kill()
        assert process.wait() < 0, "it was over before it was killed"


def make_azure_meters(client: httpx.Client, name: str) -> None:
    event_type = f"{name}.request"
    make_meter(client, f"{name}_count", "COUNT", eventType=event_type)
    for column in ("context", "generated"):
        for aggregation in ("SUM", "MIN", "MAX", "AVG", "UNIQUE_COUNT", "LATEST"):
            make_meter(
                client,
                f"{name}_{column}_{aggregation.lower()}",
                aggregation,
                eventType=event_type,
                valueProperty=f"$.{column}_tokens",
            )


def check_azure(client: httpx.Client, name: str, expected: Figures) -> None:
    for service in ("all", "code", "conv"):
        by_subject = {} if service == "all" else {"subject": service}

        def figure(slug: str, by_subject: dict[str, str] = by_subject) -> Decimal:
            value = total(client, f"{name}_{slug}", **by_subject)
            assert value is not None
            return value

        figures = expected[service]
        assert figure("count") == figures["count"]
        context, generated = figure("context_sum"), figure("generated_sum")
        assert (context, generated) == (figures["sum_context"], figures["sum_generated"])
        assert context + generated == figures["sum_total"]
        assert figure("context_latest") == figures["latest_context_by_time"]
        for column in ("context", "generated"):
            for side in ("min", "max"):
                assert figure(f"{column}_{side}") == figures[f"{side}_{column}"]
            average = figure(f"{column}_avg")
            assert float(average) == figures[f"avg_{column}"]
            exact = Fraction(figures[f"sum_{column}"], figures["count"])
            assert abs(Fraction(average) - exact) <= Fraction(1, 2 * 10**18)
        assert figure("context_unique_count") == figures["unique_context"]
    check_azure_minutes(client, name, expected["minute_windows"])


def check_azure_minutes(client: httpx.Client, name: str, expected: Figures) -> None:
    found: dict[str, dict[str, dict[str, Decimal]]] = {"code": {}, "conv": {}}
    for figure, slug in (
        ("count", "count"),
        ("context", "context_sum"),
        ("generated", "generated_sum"),
    ):
        for row in rows(client, f"{name}_{slug}", windowSize="MINUTE", groupBy="subject"):
            minute = row["windowStart"].replace("T", " ")
            found[row["subject"]].setdefault(minute, {})[figure] = row["value"]
    assert found == expected


def test_azure_by_import(
    server: MeterlineServer, client: httpx.Client, azure: tuple[Path, Figures]
) -> None:
    path, expected = azure
    make_azure_meters(client, "azi")
    options = ["--type", "azi.request", "--source", "import:azure", *AZURE_OPTIONS]
    kill_an_import_half_way(server, client, path, *options, "--batch-size", "10")
    import_file(server, path, *options)
    settle(client)
    check_azure(client, "azi", expected)
    import_file(server, path, *options)
    settle(client)
    check_azure(client, "azi", expected)


def test_azure_over_http_and_a_third_again(
    client: httpx.Client, azure: tuple[Path, Figures]
) -> None:
    path, expected = azure
    with gzip.open(path, "rt") as stream:
        events = [
            json.dumps(
                {
                    "specversion": "1.0",
                    "id": f"{row['service']}/{row['row']}",
                    "source": "azure",
                    "type": "azh.request",
                    "subject": row["service"],
                    "time": row["timestamp"].replace(" ", "T") + "Z",
                    "data": {
                        name: int(row[name]) for name in ("context_tokens", "generated_tokens")
                    },
                }
            )
            for row in csv.DictReader(stream)
        ]
    seed = 20231116
    Random(seed).shuffle(events)
    for batch in batches_of(events, 500):
        send(client, batch)
    # Half of the meters are younger than their events.
    make_azure_meters(client, "azh")
    settle(client)
    check_azure(client, "azh", expected)
    again = Random(seed + 1).sample(events, len(events) * 3 // 10)
    for batch in batches_of(again, 777):
        send(client, batch)
    settle(client)
    check_azure(client, "azh", expected)


def test_mooncake_by_import(server: MeterlineServer, client: httpx.Client) -> None:
    path = shared_path("data/mooncake_conversation.csv.gz")
    expected = json.loads(shared_path("data/mooncake_conversation.expected.json").read_bytes())
    columns = {"input": "input_length", "output": "output_length", "cached": "cached_tokens"}
    make_meter(client, "mooncake_count", "COUNT", eventType="mooncake")
    for name, column in columns.items():
        make_meter(
            client,
            f"mooncake_{name}",
            "SUM",
            eventType="mooncake",
            valueProperty=f"$.{column}",
        )
    options = ["--type", "mooncake", "--subject", "kimi", "--id-columns", "row"]
    options += ["--time-column", "timestamp_ms", "--time-format", "unix_ms"]
    import_file(server, path, *options)
    settle(client)
    minutes: dict[str, dict[str, Decimal]] = {}
    for name, figure in expected["total"].items():
        assert total(client, f"mooncake_{name}") == figure
        for row in rows(client, f"mooncake_{name}", windowSize="MINUTE"):
            minute = str(int(row["windowStart"][14:16]))
            minutes.setdefault(minute, {})[name] = row["value"]
    assert minutes == expected["minutes"]
