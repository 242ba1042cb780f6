"""The image's build file, as far as it can be known without Docker."""

import re
import subprocess
import sys

import pytest

from tests.deploy.files import ROOT
from tests.support.server import cli_environment

_TEXT = (ROOT / "deploy" / "Dockerfile").read_text()


def test_what_is_copied_is_there_and_let_through() -> None:
    allowed = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", _TEXT, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert source in allowed
    packages = re.search(r"^packages = \[(.*)\]", (ROOT / "pyproject.toml").read_text(), re.M)
    assert packages is not None
    assert set(re.findall(r'"(\w+)"', packages[1])) <= set(sources)


def test_it_has_two_stages_a_lock_and_no_root() -> None:
    assert len(re.findall(r"^FROM ", _TEXT, re.MULTILINE)) == 2
    assert "--require-hashes --requirement requirements/run.txt" in _TEXT
    last = _TEXT.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001", last, re.MULTILINE)
    assert "HEALTHCHECK" in last
    assert "/readyz" in last


@pytest.mark.parametrize("module", ["chdb", "pandas", "pyarrow"])
def test_what_embedded_0_leaves_out_is_in_the_lock(module: str) -> None:
    assert re.search(rf"^{module}==", (ROOT / "requirements" / "run.txt").read_text(), re.M)
    assert module in _TEXT


def test_roles_need_nothing_that_embedded_0_leaves_out() -> None:
    missing = "chdb", "pandas", "pyarrow"
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({missing!r}))\n"
        "import meterline.server.serve, meterline.server.kafka\n"
        "from aggregator.stores.clickhouse import ClickHouseEngine, ClickHouseOptions\n"
        "ClickHouseEngine(ClickHouseOptions())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=cli_environment({}), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
