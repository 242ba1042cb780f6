"""A whole day of 1,385,405 requests by `meterline import`, and a third of them again, shuffled.

That takes a minute, so `make test` sends the first 100,000 rows. With METERLINE_FULL_DATASETS=1 it
sends all of them, and compares with the published figures.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.support.meters import make_meter, rows, settle, total
from tests.support.server import MeterlineServer, run_cli
from tests.support.shared import shared_path

FULL = os.environ.get("METERLINE_FULL_DATASETS") == "1"
SAMPLE_ROWS = 100_000
COLUMNS = ("input_tokens", "output_tokens")
OPTIONS = (
    *("--type", "servegen", "--source", "import:servegen"),
    *("--subject-column", "client", "--time-column", "time"),
    *("--id-columns", "id", "--data-columns", ",".join(COLUMNS)),
)
Figures = dict[str, int]


@dataclass(frozen=True)
class Trace:
    """A CSV file and what must come out of it, in all and by client."""

    path: Path
    totals: Figures
    by_client: dict[str, Figures]
    by_quarter: dict[str, Figures]
    """By the start of each six hours of the day, in seconds."""


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    script = shared_path("data/expand_servegen.py")
    path = tmp_path_factory.mktemp("servegen") / "requests.csv"
    limit = [] if FULL else [str(SAMPLE_ROWS)]
    with path.open("wb") as stream:
        subprocess.run([sys.executable, str(script), *limit], stdout=stream, check=True)
    published = json.loads(shared_path("data/servegen_r1.expected.json").read_bytes())
    if FULL:
        return Trace(path, published["total"], published["by_client"], published["by_window"])
    return sums(path)


def sums(path: Path) -> Trace:
    """The figures of a part of the trace, by integer arithmetic on its rows."""
    by_client: dict[str, Figures] = {}
    by_quarter: dict[str, Figures] = {}
    totals = empty()
    with path.open() as stream:
        for row in csv.DictReader(stream):
            client = row["client"].removeprefix("client-")
            quarter = str(int(row["time"][11:13]) // 6 * 6 * 3600)
            for figures in (
                totals,
                by_client.setdefault(client, empty()),
                by_quarter.setdefault(quarter, empty()),
            ):
                figures["requests"] += 1
                for column in COLUMNS:
                    figures[column] += int(row[column])
    return Trace(path, totals, by_client, by_quarter)


def empty() -> Figures:
    return {"requests": 0, **dict.fromkeys(COLUMNS, 0)}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MeterlineServer]:
    with MeterlineServer(tmp_path_factory.mktemp("servegen") / "data") as server:
        yield server


def import_rows(server: MeterlineServer, path: Path) -> None:
    state = {"XDG_STATE_HOME": str(server.data_dir.parent / "state")}
    done = run_cli("import", path, "--url", server.url, *OPTIONS, environment=state)
    assert done.returncode == 0, done.stderr
    print(done.stderr)


def check(client: httpx.Client, trace: Trace) -> None:
    hours: dict[str, dict[str, Decimal]] = {}
    clients: dict[str, dict[str, Decimal]] = {}
    for figure in ("requests", *COLUMNS):
        slug = f"servegen_{figure}"
        assert total(client, slug) == trace.totals[figure]
        for row in rows(client, slug, groupBy="subject"):
            name = row["subject"].removeprefix("client-")
            clients.setdefault(name, {})[figure] = row["value"]
        for row in rows(client, slug, windowSize="HOUR"):
            quarter = str(int(row["windowStart"][11:13]) // 6 * 6 * 3600)
            sums = hours.setdefault(quarter, {})
            sums[figure] = sums.get(figure, Decimal()) + row["value"]
    assert clients == trace.by_client
    published: dict[str, dict[str, Any]] = {
        quarter: {figure: figures[figure] for figure in ("requests", *COLUMNS)}
        for quarter, figures in trace.by_quarter.items()
    }
    assert hours == published


def test_servegen_and_a_third_of_it_again(
    running: MeterlineServer, trace: Trace, tmp_path: Path
) -> None:
    with running.client() as client:
        make_meter(client, "servegen_requests", "COUNT", eventType="servegen")
        for column in COLUMNS:
            make_meter(
                client,
                f"servegen_{column}",
                "SUM",
                eventType="servegen",
                valueProperty=f"$.{column}",
            )
        import_rows(running, trace.path)
        settle(client, 120)
        check(client, trace)

        header, *lines = trace.path.read_text().splitlines()
        again = tmp_path / "again.csv"
        some = Random(20250101).sample(lines, len(lines) * 3 // 10)
        again.write_text("\n".join([header, *some, ""]))
        import_rows(running, again)
        settle(client, 120)
        check(client, trace)
