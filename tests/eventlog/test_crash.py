"""`kill -9` and power cuts: what was acknowledged is there, and nothing else is made up.

Each test has a control: the same test with the guard taken away must see a loss.
"""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from meterline.eventlog.sqlite import SqliteLog
from tests.eventlog.child import NOW, payload
from tests.support.parts import require_program

_ROOT = Path(__file__).parents[2]


@dataclass
class Outcome:
    """What a child acknowledged, and what its log holds afterwards; offset to number."""

    acknowledged: dict[int, int]
    stored: dict[int, int]

    @property
    def lost(self) -> dict[int, int]:
        return {
            offset: number
            for offset, number in self.acknowledged.items()
            if self.stored.get(offset) != number
        }


def start(path: Path, *flags: str, **env: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.eventlog.child", str(path), *flags],
        cwd=_ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
    )


async def look_at(path: Path, lines: bytes) -> Outcome:
    """Reopen the log of a process that is gone."""
    whole = lines[: lines.rfind(b"\n") + 1].split(b"\n")[:-1]
    pairs = (line.split() for line in whole)
    acknowledged = {int(offset): int(number) for offset, number in pairs}
    stored: dict[int, int] = {}
    async with SqliteLog(path) as log:
        after = 0
        while records := await log.read(0, after, 10**9):
            for record in records:
                assert record.events == payload(record.count), "a record was garbled"
                stored[record.offset] = record.count
            after = records[-1].offset
        # The log is usable, and gives out no offset twice.
        assert await log.append("default", NOW, 1, payload(1)) > max(stored, default=0)
        await log.trim(0, await log.end(0))
    return Outcome(acknowledged, stored)


async def kill_after(path: Path, acknowledgements: int, *flags: str) -> Outcome:
    child = start(path, "FULL", *flags)
    assert child.stdout is not None
    lines = b"".join(child.stdout.readline() for _ in range(acknowledgements))
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.read()
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()
    return await look_at(path, lines)


async def test_kill_9_under_load_loses_nothing_acknowledged(tmp_path: Path) -> None:
    for acknowledgements in (1, 40, 300, 2_000):
        outcome = await kill_after(tmp_path / "log", acknowledgements)
        assert len(outcome.acknowledged) >= acknowledgements
        assert outcome.lost == {}


async def test_control_acknowledging_before_the_commit_loses_batches(tmp_path: Path) -> None:
    outcome = await kill_after(tmp_path / "log", 40, "early")
    assert outcome.lost != {}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = require_program("cc")
    library = tmp_path_factory.mktemp("shim") / "power_cut.so"
    source = Path(__file__).with_name("power_cut.c")
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source)]
    command += ["-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


async def cut_power(shim: Path, folder: Path, synchronous: str, write: int, *flags: str) -> Outcome:
    lines = run_until_cut(shim, folder, synchronous, write, *flags)
    return await look_at(folder / "log", lines)


def run_until_cut(shim: Path, folder: Path, synchronous: str, write: int, *flags: str) -> bytes:
    """What a child acknowledged before its write number `write` met the power cut."""
    folder.mkdir(exist_ok=True)
    child = start(
        folder / "log", synchronous, *flags,
        LD_PRELOAD=str(shim), CUT_DIR=str(folder), CUT_AT=str(write), CUT_SEED=str(write),
    )  # fmt: skip
    try:
        lines, _ = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == -signal.SIGKILL
    for leftover in folder.glob("*-shm"):
        leftover.unlink()
    return lines


async def test_a_power_cut_loses_nothing_acknowledged(shim: Path, tmp_path: Path) -> None:
    acknowledged = 0
    for write in (3, 11, 30, 57, 100, 171, 300, 555, 900, 1500):
        outcome = await cut_power(shim, tmp_path / f"cut{write}", "FULL", write)
        assert outcome.lost == {}, f"cut at write {write}"
        acknowledged += len(outcome.acknowledged)
    assert acknowledged > 500


async def test_a_second_power_cut_after_recovery_loses_nothing(shim: Path, tmp_path: Path) -> None:
    for write in (200, 333, 120):
        outcome = await cut_power(shim, tmp_path / "log", "FULL", write)
        assert outcome.lost == {}


async def test_a_power_cut_while_trimming_loses_nothing_after_the_trim(
    shim: Path, tmp_path: Path
) -> None:
    for write in (60, 211, 400, 777):
        outcome = await cut_power(shim, tmp_path / f"cut{write}", "FULL", write, "trim")
        last = max(outcome.acknowledged)
        lost = [offset for offset in outcome.lost if offset > last - 100]
        assert lost == [], f"cut at write {write}"


@pytest.mark.parametrize("synchronous", ["OFF", "NORMAL"])
async def test_control_without_a_sync_for_each_commit_a_power_cut_loses_batches(
    shim: Path, tmp_path: Path, synchronous: str
) -> None:
    # A cut just after a checkpoint, which syncs, may lose nothing; not each of these is one.
    for write in (50, 150, 290, 97, 211, 333, 421):
        outcome = await cut_power(shim, tmp_path / f"cut{write}", synchronous, write)
        if outcome.lost:
            return
    pytest.fail("nothing was lost")
