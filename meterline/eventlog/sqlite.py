"""The embedded log: a SQLite file in WAL mode that one process owns.

One row is one group commit. Three connections, a thread each, never wait for one another's
disk: the writer appends, the reader feeds the sink, the keeper trims and moves the WAL into the
file. SQLite allows one writer at a time, so writer and keeper share a lock that is held for one
short transaction each.
"""

import asyncio
import fcntl
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Self

from meterline.eventlog.frames import Batch, Frames
from meterline.eventlog.groupcommit import GroupCommit
from meterline.eventlog.port import Changed, Record
from meterline.kernel.errors import UnavailableError

_PAGE_BYTES = 16 * 1024
_TRIM_ROWS = 16
_SPARE_PAGES = 1024
_SHRINK_PAGES = 256
_SCHEMA = """
CREATE TABLE IF NOT EXISTS groups (
    last INTEGER PRIMARY KEY, first INTEGER NOT NULL, events INTEGER NOT NULL,
    codec INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS state (
    one INTEGER PRIMARY KEY CHECK (one = 1), trimmed INTEGER NOT NULL, opened INTEGER NOT NULL
);
INSERT OR IGNORE INTO state (one, trimmed, opened) VALUES (1, 0, 0);
"""


@dataclass(frozen=True, slots=True)
class SqliteLogOptions:
    """Bounds and costs of the embedded log."""

    max_waiting_batches: int = 10_000
    max_waiting_bytes: int = 256 * 1024 * 1024
    max_group_batches: int = 512
    max_group_bytes: int = 4 * 1024 * 1024
    checkpoint_bytes: int = 16 * 1024 * 1024
    """Size of the WAL at which it is moved into the file; it stays within a few times this."""
    max_bytes: int | None = None
    """Size of the file at which appends are refused until the sink has caught up."""
    compression_level: int = 1
    synchronous: str = "FULL"
    """Anything less loses acknowledged events at a power cut; tests prove it."""


class SqliteLog:
    """An `EventLog` of one partition, 0."""

    def __init__(self, path: Path, options: SqliteLogOptions | None = None) -> None:
        """Open or create the log at `path`. Blocks; raises `UnavailableError` when it cannot."""
        self._path = path
        self._options = options or SqliteLogOptions()
        self._owner = _own(path)
        try:
            self._writer = self._connect(self._options.synchronous)
            self._writer.executescript(_SCHEMA)
            # A killed process may have left commits that the disk has not seen yet. This one
            # syncs the WAL, them included, before anybody reads them.
            self._writer.execute("UPDATE state SET opened = opened + 1")
            self._reader = self._connect("FULL")
            # What a trim or a checkpoint did may be undone by a power cut: it is done again.
            self._keeper = self._connect("NORMAL")
            self._trimmed: int = self._writer.execute("SELECT trimmed FROM state").fetchone()[0]
            self._end = self._last()
        except sqlite3.Error as error:
            self._owner.close()
            raise UnavailableError(f"the event log cannot be opened: {error}") from error
        self._tried = self._end
        self._broken = False
        self._wal_pages = 0
        self._checkpointing = False
        self._write_lock = threading.Lock()
        self._frames = Frames(self._options.compression_level)
        self._read_frames = Frames()
        self._read_pool = ThreadPoolExecutor(1, "eventlog-read")
        self._keep_pool = ThreadPoolExecutor(1, "eventlog-keep")
        self._appended: asyncio.Event | None = None
        self._closed = False
        self._commits: GroupCommit[Batch, int] = GroupCommit(
            self._commit,
            name="the event log",
            max_items=self._options.max_waiting_batches,
            max_cost=self._options.max_waiting_bytes,
            max_group_items=self._options.max_group_batches,
            max_group_cost=self._options.max_group_bytes,
            settled=self._settled,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def append(self, namespace: str, ingested_at: datetime, count: int, events: bytes) -> int:
        """See `LogWriter.append`."""
        batch = Batch(namespace, ingested_at, count, events)
        return await self._commits.submit(batch, len(events))

    async def subscribe(self, changed: Changed) -> None:
        """See `LogReader.subscribe`."""
        await changed(frozenset({0}))

    def partition_count(self) -> int:
        """There is one partition, 0."""
        return 1

    async def read(self, partition: int, after: int, max_events: int) -> Sequence[Record]:
        """See `LogReader.read`."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._read_pool, self._read, after, max_events)

    async def wait(self, partition: int, after: int, timeout_seconds: float) -> bool:
        """See `LogReader.wait`."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._end <= after:
                    if self._appended is None:
                        self._appended = asyncio.Event()
                    await self._appended.wait()
        except TimeoutError:
            return False
        return True

    async def end(self, partition: int) -> int:
        """See `LogReader.end`."""
        return self._end

    async def ends(self) -> Mapping[int, int]:
        """See `LogReader.ends`."""
        return {0: self._end}

    async def count(self, partition: int, after: int) -> int:
        """See `LogReader.count`."""
        if self._end <= after:
            return 0
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._read_pool, self._count, after)

    async def trim(self, partition: int, through: int) -> None:
        """See `LogReader.trim`. Works in small transactions, so appends pass in between."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._keep_pool, self._trim, min(through, self._end))

    async def skip(self, partition: int, through: int) -> None:
        """See `LogReader.skip`."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._keep_pool, self._skip, through)

    async def dead_letter(self, record: Record, reason: str) -> None:
        """The database's list is enough."""

    async def close(self) -> None:
        """See `LogWriter.close`."""
        if self._closed:
            return
        self._closed = True
        await self._commits.close()
        await asyncio.get_running_loop().run_in_executor(None, self._release)

    # The writer's thread.

    def _commit(self, batches: Sequence[Batch]) -> Sequence[int]:
        codec, body = self._frames.encode(batches)
        events = sum(batch.count for batch in batches)
        try:
            with self._write_lock:
                if self._broken:
                    self._mend()
                first = self._tried + 1
                last = self._tried = self._tried + len(batches)
                # Outside a transaction one statement is one: its end is the durable commit. One
                # statement a group also means one wait for the interpreter lock a group.
                self._writer.execute(
                    "INSERT INTO groups VALUES (?, ?, ?, ?, ?)", (last, first, events, codec, body)
                )
        except sqlite3.Error as error:
            self._broken = True
            raise UnavailableError(f"the event log cannot be written: {error}") from error
        self._end = last
        self._wal_pages += 2 + len(body) // _PAGE_BYTES
        if self._wal_pages * _PAGE_BYTES > self._options.checkpoint_bytes:
            self._request_checkpoint()
        return range(first, last + 1)

    def _mend(self) -> None:
        """After an error nobody knows whether the group was stored: never use its offsets again."""
        if self._writer.in_transaction:
            self._writer.rollback()
        self._end = self._last()
        self._tried = max(self._tried, self._end)
        self._broken = False

    def _last(self) -> int:
        row = self._writer.execute(
            "SELECT max(trimmed, coalesce((SELECT max(last) FROM groups), 0)) FROM state"
        ).fetchone()
        return int(row[0])

    # The reader's thread.

    def _read(self, after: int, max_events: int) -> list[Record]:
        found: list[Record] = []
        events = 0
        after = max(after, self._trimmed)
        try:
            cursor = self._reader.execute(
                "SELECT first, codec, body FROM groups WHERE last > ? ORDER BY last", (after,)
            )
            try:
                for first, codec, body in cursor:
                    for record in self._read_frames.decode(0, first, codec, body):
                        if record.offset <= after:
                            continue
                        events += record.count
                        if found and events > max_events:
                            return found
                        found.append(record)
                    if events >= max_events:
                        return found
            finally:
                cursor.close()
        except sqlite3.Error as error:
            raise UnavailableError(f"the event log cannot be read: {error}") from error
        return found

    def _count(self, after: int) -> int:
        sql = "SELECT coalesce(sum(events), 0) FROM groups WHERE last > ?"
        try:
            return int(self._reader.execute(sql, (after,)).fetchone()[0])
        except sqlite3.Error as error:
            raise UnavailableError(f"the event log cannot be read: {error}") from error

    # The keeper's thread.

    def _skip(self, through: int) -> None:
        with self._write_lock, self._keeper:
            self._keeper.execute("UPDATE state SET trimmed = max(trimmed, ?)", (through,))
            self._trimmed = max(self._trimmed, through)
            self._tried = max(self._tried, through)
            self._end = max(self._end, through)

    def _trim(self, through: int) -> None:
        try:
            while True:
                with self._write_lock, self._keeper:
                    self._keeper.execute("BEGIN IMMEDIATE")
                    deleted = self._keeper.execute(
                        "DELETE FROM groups WHERE last IN"
                        " (SELECT last FROM groups WHERE last <= ? ORDER BY last LIMIT ?)",
                        (through, _TRIM_ROWS),
                    ).rowcount
                    self._keeper.execute("UPDATE state SET trimmed = max(trimmed, ?)", (through,))
                self._trimmed = max(self._trimmed, through)
                self._wal_pages += deleted + 2
                self._checkpoint_if_due()
                if deleted < _TRIM_ROWS:
                    break
            self._shrink()
        except sqlite3.Error as error:
            raise UnavailableError(f"the event log cannot be trimmed: {error}") from error

    def _shrink(self) -> None:
        """Give space back after a backlog; a little is kept, for it would soon be needed again."""
        before = None
        while True:
            with self._write_lock:
                free = self._keeper.execute("PRAGMA freelist_count").fetchone()[0]
                pages = self._keeper.execute("PRAGMA page_count").fetchone()[0]
                if free <= _SPARE_PAGES or free * 2 < pages or free == before:
                    break
                # As a script: `execute` would take one step of it, which is one page.
                self._keeper.executescript(f"PRAGMA incremental_vacuum({_SHRINK_PAGES})")
            before = free
            self._wal_pages += _SHRINK_PAGES
            self._checkpoint_if_due()
        if before is not None:
            self._checkpoint()  # only this makes the file shorter

    def _checkpoint_if_due(self) -> None:
        """What the writer asks for waits behind a long trim, so the trim does it by itself."""
        if self._wal_pages * _PAGE_BYTES > self._options.checkpoint_bytes:
            self._checkpoint()

    def _request_checkpoint(self) -> None:
        if not self._checkpointing:
            self._checkpointing = True
            self._keep_pool.submit(self._checkpoint)

    def _checkpoint(self) -> None:
        """Move the WAL into the file: most of it beside the writer, the rest while it waits."""
        try:
            self._keeper.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            with self._write_lock:
                # Only a WAL that is moved to its end, with no reader in it, starts over.
                busy, _, _ = self._keeper.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
                if not busy:
                    self._wal_pages = 0
        except sqlite3.Error:
            pass  # A full disk, say. The appends meet it too, and the next commit asks again.
        finally:
            self._checkpointing = False

    # Both ends of its life.

    def _connect(self, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=1.0, isolation_level=None, check_same_thread=False
        )
        connection.execute(f"PRAGMA page_size = {_PAGE_BYTES}")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        # Some builds overwrite what is deleted, which makes a trim cost as much as an append.
        connection.execute("PRAGMA secure_delete = OFF")
        if self._options.max_bytes is not None:
            pages = self._options.max_bytes // _PAGE_BYTES
            connection.execute(f"PRAGMA max_page_count = {pages}")
        return connection

    def _settled(self, offsets: Sequence[int]) -> None:
        if self._appended is not None:
            self._appended.set()
            self._appended = None

    def _release(self) -> None:
        self._read_pool.shutdown()
        self._keep_pool.shutdown()
        for connection in (self._reader, self._keeper, self._writer):
            connection.close()
        self._owner.close()


def _own(path: Path) -> IO[bytes]:
    """Make this process the only one that has the log open; offsets are given out in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = path.with_name(path.name + ".lock").open("wb")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        handle.close()
        raise UnavailableError(f"the event log {path} is in use by another process") from error
    return handle
