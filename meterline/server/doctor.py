"""Looks for what would keep a server from starting or from being fast, and says what to do."""

import asyncio
import os
import resource
import shutil
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Literal

from aggregator.stores.clickhouse import ClickHouseEngine
from meterline.db.keys import SqlKeyStore
from meterline.eventlog.sqlite import SqliteLog
from meterline.kernel.errors import MeterlineError
from meterline.kernel.windows import load_zone
from meterline.server.roles import parts_of
from meterline.server.sections import ServerSettings
from meterline.server.serve import is_loopback
from meterline.server.settings import Settings
from meterline.server.stores import (
    DataDir,
    clickhouse_options,
    database_of,
    kafka_options,
    opened_database,
)

_LOW_SPACE_BYTES = 5 * 1024**3
_SLOW_SYNC_SECONDS = 0.02
_FEW_FILES = 1024
_PATIENCE_SECONDS = 15.0
_CONNECTIONS = (
    "SELECT count(*) AS used, current_setting('max_connections') AS most FROM pg_stat_activity"
)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check of `doctor` found."""

    name: str
    status: Literal["ok", "warning", "failed"]
    text: str


async def diagnose(settings: Settings) -> list[Finding]:
    """Every check, none of which changes data."""
    path = settings.server.data_dir
    checks: list[Callable[[], Finding]] = [_python, _files, _zones, lambda: _role(settings)]
    if _embeds(settings):
        checks += [lambda: _folder(path), lambda: _space(path), lambda: _sync(path)]
    if settings.eventlog.kind == "embedded":
        checks.append(lambda: _log(DataDir(path)))
    checks.append(lambda: _port(settings.server))
    findings = [await asyncio.to_thread(check) for check in checks]
    findings += await _services(settings)
    if any(one.name == "PostgreSQL" and one.status == "failed" for one in findings):
        return findings
    return [*findings, await _keys(settings)]


def _embeds(settings: Settings) -> bool:
    """Whether anything is kept in the data folder."""
    kinds = (settings.eventlog.kind, settings.store.kind)
    return "embedded" in kinds or settings.database.is_embedded


def _role(settings: Settings) -> Finding:
    try:
        parts_of(settings)
    except MeterlineError as error:
        return Finding("role", "failed", error.detail or error.title)
    return Finding("role", "ok", settings.server.role)


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
    is_open = settings.auth.first_key is None
    if is_open and (settings.database.url is not None or data.database.exists()):
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


async def _services(settings: Settings) -> list[Finding]:
    """The backends that are services, each asked once; nothing is made or changed."""
    given: dict[str, Callable[[], Awaitable[str]]] = {}
    if settings.eventlog.kind == "kafka":
        given["Kafka"] = lambda: _kafka(settings)
    if settings.store.kind == "clickhouse":
        given["ClickHouse"] = lambda: _clickhouse(settings)
    if not settings.database.is_embedded:
        given["PostgreSQL"] = lambda: _postgres(settings)
    return [await _found(name, ask) for name, ask in given.items()]


async def _found(name: str, ask: Callable[[], Awaitable[str]]) -> Finding:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return Finding(name, "ok", await ask())
    except TimeoutError:
        return Finding(name, "failed", f"no answer in {_PATIENCE_SECONDS:g} s")
    except MeterlineError as error:
        return Finding(name, "failed", error.detail or error.title)


async def _kafka(settings: Settings) -> str:
    from meterline.eventlog.kafka_topic import open_topic

    options = replace(kafka_options(settings), create_topics=False)
    await open_topic(options)
    return f"the topic {options.topic} has its {options.partitions} partitions"


async def _clickhouse(settings: Settings) -> str:
    engine = ClickHouseEngine(clickhouse_options(settings), handles=1)
    try:
        ((version,),) = await engine.query("SELECT version()")
    finally:
        await engine.close()
    return f"version {version}"


async def _postgres(settings: Settings) -> str:
    database = database_of(settings)
    try:
        async with database.read() as conn:
            version = (await conn.exec_driver_sql("SHOW server_version")).scalar_one()
            row = (await conn.exec_driver_sql(_CONNECTIONS)).mappings().one()
    finally:
        await database.close()
    return f"version {version}, {row['used']} of {row['most']} connections in use"
