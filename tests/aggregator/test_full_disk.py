"""A full disk under the event store stops the sink, visibly, and loses nothing."""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.worker import SinkOptions
from tests.support.engines import over_http
from tests.support.usage import Rig, canonical, meter, running_sink, send

SIZE_MIB = 48


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder whose `store` is a small file system of its own."""
    if over_http():
        pytest.skip("the store is a server's, and not in this folder")
    store = tmp_path / "store"
    store.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB}m", "tmpfs", str(store)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(store)], check=True)


async def _fails(rig: Rig) -> None:
    async with asyncio.timeout(30):
        while (await rig.sink.status())[0].last_error is None:
            await rig.sink.wait_visible(0.05)


async def test_events_wait_in_the_log_until_there_is_room(small_disk: Path) -> None:
    options = SinkOptions(linger_seconds=0.0, retry_seconds=0.05, stalled_after_seconds=0.0)
    async with running_sink(small_disk, [meter("tokens")], options=options) as rig:
        await send(rig.log, [canonical("before", '{"tokens": 1}')])
        await rig.settle()
        filler = small_disk / "store" / "filler"
        with filler.open("wb") as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(b"\0" * 65_536)
                file.flush()
        for number in range(5):
            events = [canonical(f"{number}-{n}", '{"tokens": 1}') for n in range(200)]
            await send(rig.log, events)
        await _fails(rig)
        assert (await rig.sink.status())[0].stalled
        filler.unlink()
        await rig.settle()
        assert list((await rig.totals()).values()) == [("1001", 1001)]
        assert (await rig.sink.status())[0].last_error is None
        assert await rig.dead_letters() == []
