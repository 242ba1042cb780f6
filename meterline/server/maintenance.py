"""What is done to a data folder without serving: migrating it, and looking for trouble."""

import asyncio
import os
import resource
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal

from aggregator.checkup import check_store
from aggregator.stores import state
from aggregator.stores.migrations import migrate as migrate_engine
from entitlements.services.rebuild import Compared
from meterline.db.keys import SqlKeyStore
from meterline.eventlog.sqlite import SqliteLog
from meterline.kernel.errors import MeterlineError, UnavailableError
from meterline.kernel.windows import load_zone
from meterline.server.assembly import Assembly, assembled
from meterline.server.sections import ServerSettings
from meterline.server.serve import is_loopback
from meterline.server.settings import Settings
from meterline.server.stores import (
    DataDir,
    database_of,
    opened_database,
    opened_engines,
    opened_stores,
)

_LOW_SPACE_BYTES = 5 * 1024**3
_SLOW_SYNC_SECONDS = 0.02
_FEW_FILES = 1024
_CATCH_UP_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of `doctor` found."""

    name: str
    status: Literal["ok", "warning", "failed"]
    text: str


async def migrate(settings: Settings) -> list[str]:
    """Apply what is missing; answers its names. An embedded server must not be running."""
    database = database_of(settings)
    try:
        applied = [f"database {version}" for version in await database.migrate()]
    finally:
        await database.close()
    async with opened_engines(settings) as engines:
        await migrate_engine(engines.sink)
    return applied


async def diagnose(settings: Settings) -> list[Finding]:
    """Every check, none of which changes data."""
    path = settings.server.data_dir
    checks: list[Callable[[], Finding]] = [
        lambda: _python(),
        lambda: _folder(path),
        lambda: _space(path),
        lambda: _sync(path),
        lambda: _files(),
        lambda: _zones(),
        lambda: _log(DataDir(path)),
        lambda: _port(settings.server),
    ]
    findings = [await asyncio.to_thread(check) for check in checks]
    findings.append(await _keys(settings))
    return findings


async def diagnose_store(settings: Settings) -> list[Finding]:
    """Whether everything stored agrees with everything else. The server must not be running."""
    async with opened_stores(settings) as stores:
        await migrate_engine(stores.engines.sink)
        async with stores.database.read() as conn:
            series = [one.series for one in await state.load_series(conn)]
            unfinished = [
                part
                for part in range(stores.log.reader.partition_count())
                if await state.load_plan(conn, part)
            ]
        if unfinished:
            text = "the last server was cut off; start one to finish what it began, then check"
            return [Finding("event store", "warning", text)]
        wrong = await check_store(stores.engines.queries, series)
    if not wrong:
        return [Finding("event store", "ok", f"its tables agree, over {len(series)} series")]
    return [Finding("event store", "failed", f"{one.what}: {one.found}") for one in wrong]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    status: Literal["ok", "failed"] = "ok" if sys.version_info >= (3, 11) else "failed"
    return Finding("python", status, f"{version} on {sys.platform}, {os.cpu_count()} CPUs")


def _folder(path: Path) -> Finding:
    if not path.exists():
        return Finding("data folder", "ok", f"{path} is made at the first start")
    if not path.is_dir() or not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Finding("data folder", "failed", f"{path} is not a folder that I may write")
    return Finding("data folder", "ok", str(path.absolute()))


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def _space(path: Path) -> Finding:
    free = shutil.disk_usage(_existing(path)).free
    text = f"{free / 1024**3:,.1f} GiB free"
    if free < _LOW_SPACE_BYTES:
        return Finding("disk space", "warning", f"{text}; events are refused when it is full")
    return Finding("disk space", "ok", text)


def _sync(path: Path) -> Finding:
    """How long the disk takes to make a commit durable: the floor of a single event's ack."""
    folder = _existing(path)
    if not os.access(folder, os.W_OK):
        return Finding("disk sync", "failed", f"{folder} cannot be written")
    probe = folder / f".meterline-doctor-{os.getpid()}"
    times: list[float] = []
    try:
        with probe.open("wb") as file:
            for _ in range(20):
                file.write(b"\0" * 4096)
                file.flush()
                started = perf_counter()
                os.fsync(file.fileno())
                times.append(perf_counter() - started)
    finally:
        probe.unlink(missing_ok=True)
    text = f"{median(times) * 1000:.2f} ms a sync"
    if median(times) > _SLOW_SYNC_SECONDS:
        return Finding("disk sync", "warning", f"{text}; single events will be slow")
    return Finding("disk sync", "ok", text)


def _files() -> Finding:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit < _FEW_FILES:
        return Finding("open files", "warning", f"limit {limit}; raise it (ulimit -n 65536)")
    return Finding("open files", "ok", f"limit {limit}")


def _zones() -> Finding:
    try:
        load_zone("Europe/Berlin")
    except MeterlineError:
        return Finding("time zones", "failed", "no zone data: install the package tzdata")
    return Finding("time zones", "ok", "available")


def _log(data: DataDir) -> Finding:
    if not data.event_log.exists():
        return Finding("event log", "ok", "none yet")
    try:
        log = SqliteLog(data.event_log)
    except MeterlineError as error:
        return Finding("event log", "ok", f"{error.detail}: a server runs on this folder")
    asyncio.run(log.close())
    return Finding("event log", "ok", "opens")


def _port(server: ServerSettings) -> Finding:
    where = f"{server.host}:{server.port}"
    with socket.socket(socket.AF_INET6 if ":" in server.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((server.host, server.port))
        except OSError as error:
            return Finding("address", "warning", f"{where}: {error.strerror}")
    return Finding("address", "ok", f"{where} is free")


async def _keys(settings: Settings) -> Finding:
    data = DataDir(settings.server.data_dir)
    is_open = True
    if data.database.exists():
        async with opened_database(settings) as database:
            is_open = not await SqlKeyStore(database).any_exists()
    if not is_open:
        return Finding("access", "ok", "closed: requests need an API key")
    if not is_loopback(settings.server.host):
        return Finding(
            "access",
            "failed",
            f"no API key exists, so the server will refuse to listen on {settings.server.host}:"
            " make one with `meterline keys create`",
        )
    return Finding("access", "warning", "no API key exists: open to everybody on this machine")


async def verify_usage(settings: Settings) -> AsyncIterator[Compared]:
    """Live usage beside the event store's, row by row. The server must not be running."""
    async with assembled(settings, show=_say_nothing) as server:
        await _catch_up(server)
        async for one in server.live_usage.compare():
            yield one


async def rebuild_usage(settings: Settings, tell: Callable[[int], None]) -> None:
    """Make live usage anew from the event store. The server must not be running."""
    async with assembled(settings, show=_say_nothing) as server:
        await _catch_up(server)
        await server.live_usage.rebuild(tell)


async def _catch_up(server: Assembly) -> None:
    if not await server.caught_up(_CATCH_UP_SECONDS):
        raise UnavailableError("accepted events are not stored yet: let the server finish first")


def _say_nothing(_line: str) -> None:
    """The declared meters are not what was asked about."""
