"""The embedded log beyond the contract: reopening, failures of the disk, and its size."""

import asyncio
import random
import resource
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from meterline.eventlog.sqlite import SqliteLog, SqliteLogOptions
from meterline.kernel.errors import UnavailableError

NOW = datetime(2026, 11, 20, tzinfo=UTC)
KIB = 1024


def incompressible(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


async def append(log: SqliteLog, events: bytes = b"[{}]", count: int = 1) -> int:
    return await log.append("default", NOW, count, events)


async def everything(log: SqliteLog) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while records := await log.read(0, max(found, default=0), 1000):
        found |= {record.offset: record.events for record in records}
    return found


async def test_records_and_the_end_outlive_the_process(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log") as log:
        written = {await append(log, b"[%d]" % number): b"[%d]" % number for number in range(30)}
        end = await log.end(0)
    async with SqliteLog(tmp_path / "log") as log:
        assert await everything(log) == written
        assert await log.end(0) == end
        assert await append(log) > end


async def test_offsets_are_not_reused_after_trimming_all_and_reopening(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log") as log:
        last = [await append(log) for _ in range(5)][-1]
        await log.trim(0, last)
    for _ in range(2):
        async with SqliteLog(tmp_path / "log") as log:
            assert await log.end(0) == last
            assert await log.read(0, 0, 10) == []
    async with SqliteLog(tmp_path / "log") as log:
        assert await append(log) > last


async def test_a_trim_within_a_group_outlives_the_process(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log") as log:
        offsets = sorted(await asyncio.gather(*(append(log) for _ in range(40))))
        await log.trim(0, offsets[20])
    async with SqliteLog(tmp_path / "log") as log:
        assert list(await everything(log)) == offsets[21:]


async def test_one_process_only_may_open_it(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log"):
        with pytest.raises(UnavailableError, match="in use"):
            SqliteLog(tmp_path / "log")
    await SqliteLog(tmp_path / "log").close()


async def test_a_file_that_is_no_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"this is not a database" * 1000)
    with pytest.raises(UnavailableError, match="cannot be opened"):
        SqliteLog(tmp_path / "log")


async def test_the_wal_is_bounded_under_load_and_space_is_used_again(tmp_path: Path) -> None:
    options = SqliteLogOptions(checkpoint_bytes=256 * KIB)
    async with SqliteLog(tmp_path / "log", options) as log:
        for burst in range(60):
            offsets = await asyncio.gather(
                *(append(log, incompressible(16 * KIB, burst * 8 + n)) for n in range(8))
            )
            await log.trim(0, min(offsets))
        # 7.7 MB went through.
        assert (tmp_path / "log-wal").stat().st_size < 4 * 1024 * KIB
        assert (tmp_path / "log").stat().st_size < 4 * 1024 * KIB


async def test_space_is_given_back_after_a_backlog(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log") as log:
        for number in range(30):
            last = await append(log, incompressible(1024 * KIB, number))
        await log.trim(0, last - 1)
        await append(log)
    assert (tmp_path / "log").stat().st_size < 20 * 1024 * KIB
    async with SqliteLog(tmp_path / "log") as log:
        assert len(await everything(log)) == 2


async def test_a_log_at_its_size_limit_refuses_until_it_is_trimmed(tmp_path: Path) -> None:
    options = SqliteLogOptions(max_bytes=1024 * KIB)
    async with SqliteLog(tmp_path / "log", options) as log:
        stored: dict[int, bytes] = {}
        with pytest.raises(UnavailableError, match="full"):
            for number in range(1000):
                events = incompressible(20 * KIB, number)
                stored[await append(log, events)] = events
        assert await everything(log) == stored
        with pytest.raises(UnavailableError, match="full"):
            await append(log, incompressible(20 * KIB))
        await log.trim(0, max(stored))
        later = await append(log, b"[1]")
        assert later > max(stored)
        assert await everything(log) == {later: b"[1]"}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writes beyond this size fail, as they do on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_fails_those_who_wait_and_nobody_later(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log") as log:
        stored: dict[int, bytes] = {}
        with files_of_at_most(1024 * KIB):
            failed = 0
            for number in range(100):
                events = incompressible(30 * KIB, number)
                try:
                    stored[await append(log, events)] = events
                except UnavailableError:
                    failed += 1
            assert failed > 0
            assert stored
            assert await everything(log) == stored
        later = await append(log, b"[1]")
        assert await everything(log) == {**stored, later: b"[1]"}
    async with SqliteLog(tmp_path / "log") as log:
        assert await everything(log) == {**stored, later: b"[1]"}


class FailingConnection:
    """A connection whose inserts fail when told to, before or after they took effect."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.fail: str | None = None

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if self.fail is not None and sql.startswith("INSERT"):
            if self.fail == "after":
                self._connection.execute(sql, parameters)
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_failed_write_fails_its_waiters_and_never_shares_an_offset(
    tmp_path: Path, moment: str
) -> None:
    async with SqliteLog(tmp_path / "log") as log:
        connection = FailingConnection(log._writer)
        log._writer = connection  # type: ignore[assignment]
        first = await append(log, b"[1]")
        connection.fail = moment
        failures = await asyncio.gather(
            *(append(log, b"[2]") for _ in range(5)), return_exceptions=True
        )
        assert [type(failure) for failure in failures] == [UnavailableError] * 5
        connection.fail = None
        last = await append(log, b"[3]")
        found = await everything(log)
        assert found[first] == b"[1]"
        assert found[last] == b"[3]"
        # Stored after all: allowed, since a retry of the caller is deduplicated.
        assert set(found.values()) == (
            {b"[1]", b"[3]"} if moment == "before" else {b"[1]", b"[2]", b"[3]"}
        )
        assert await log.end(0) == last


async def test_a_long_trim_lets_appends_pass_in_between(tmp_path: Path) -> None:
    async with SqliteLog(tmp_path / "log") as log:
        for number in range(100):
            last = await append(log, incompressible(1 * KIB, number))
        statements: list[str] = []
        log._keeper.set_trace_callback(statements.append)
        trim = asyncio.create_task(log.trim(0, last))
        meanwhile = [await append(log) for _ in range(20)]
        await trim
        log._keeper.set_trace_callback(None)
        # The lock that appends need is held for one of these transactions at a time.
        assert sum(text.startswith("BEGIN") for text in statements) >= 100 // 16
        assert list(await everything(log)) == meanwhile
