"""The engine in this process: chDB through clickhouse-connect. The only file that imports either.

One process may open a data directory. A handle runs one statement at a time and releases the
interpreter meanwhile, so statements run in threads over a small pool of handles.
"""

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError

from aggregator.stores.engine import EngineError, Params, Settings, UnreadableError
from meterline.kernel.errors import UnavailableError, ValidationError

T = TypeVar("T")

_INSERT = re.compile(r"\s*INSERT INTO \w+(?: \([^)]*\))?")
_TIMEOUT_EXCEEDED = 159
_MEMORY_LIMIT_EXCEEDED = 241
_SESSION: dict[str, str | int] = {
    "session_timezone": "UTC",
    "async_insert": 0,
    "use_query_condition_cache": 0,
    "enable_extended_results_for_datetime_functions": 1,
}


class ChdbEngine:
    """`Engine` over a chDB data directory.

    `handles` is how many statements may run at once. Reads are stopped after
    `query_timeout_seconds` and above `query_memory_bytes`.
    """

    def __init__(
        self,
        path: Path,
        *,
        handles: int = 4,
        query_timeout_seconds: float | None = None,
        query_memory_bytes: int | None = None,
    ) -> None:
        # The engine takes its zone from the process; windows are given theirs by parameter.
        os.environ["TZ"] = "UTC"
        path.mkdir(parents=True, exist_ok=True)
        self._path = str(path)
        self._reads: dict[str, str | int] = {}
        if query_timeout_seconds is not None:
            self._reads["max_execution_time"] = str(query_timeout_seconds)
        if query_memory_bytes is not None:
            self._reads["max_memory_usage"] = query_memory_bytes
        self._free: SimpleQueue[Client] = SimpleQueue()
        self._threads = ThreadPoolExecutor(handles, thread_name_prefix="chdb")
        for _ in range(handles):
            self._free.put(self._open())

    def _open(self) -> Client:
        return clickhouse_connect.get_client(
            interface="chdb", path=self._path, settings=_SESSION, tz_mode="aware"
        )

    async def query(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        def run(client: Client) -> list[tuple[Any, ...]]:
            result = client.query(sql, parameters=dict(params or {}), settings=self._reads)
            return [tuple(map(_utc, row)) for row in result.result_rows]

        return await self._run(run)

    async def fetch(self, sql: str, fmt: str, params: Params | None = None) -> bytes:
        def run(client: Client) -> bytes:
            return client.raw_query(
                sql, parameters=dict(params or {}), fmt=fmt, settings=self._reads
            )

        return await self._run(run)

    async def execute(
        self, sql: str, params: Params | None = None, settings: Settings | None = None
    ) -> int:
        statement, rest = _with_settings(sql, settings or {})

        def run(client: Client) -> int:
            summary = client.command(statement, parameters=dict(params or {}), settings=rest)
            return int(getattr(summary, "written_rows", 0))

        return await self._run(run)

    async def load(
        self,
        table: str,
        columns: Sequence[str],
        fmt: str,
        body: bytes,
        settings: Settings | None = None,
    ) -> None:
        def run(client: Client) -> None:
            client.raw_insert(table, list(columns), body, settings=dict(settings or {}), fmt=fmt)

        await self._run(run)

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        while not self._free.empty():
            self._free.get().close()

    async def _run(self, work: Callable[[Client], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._with, work)

    def _with(self, work: Callable[[Client], T]) -> T:
        client = self._free.get()
        try:
            result = work(client)
        except ClickHouseError as error:
            # A failed statement can leave bytes in its handle that would be put before the next
            # answer (seen with chDB 26.9), so the handle is not used again.
            client.close()
            client = self._open()
            raise _translated(error) from error
        finally:
            self._free.put(client)
        return result


def _with_settings(sql: str, settings: Settings) -> tuple[str, dict[str, str | int]]:
    """An INSERT with its settings written into it, and what is left to be set around it.

    The driver sets and resets each setting by a statement of its own, which costs more than many
    an insert does.
    """
    found = _INSERT.match(sql)
    if found is None or not settings:
        return sql, dict(settings)
    clause = ", ".join(f"{name} = {_literal(value)}" for name, value in settings.items())
    return f"{found[0]} SETTINGS {clause} {sql[found.end() :]}", {}


def _literal(value: str | int) -> str:
    if isinstance(value, int):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _translated(error: ClickHouseError) -> Exception:
    code = int(getattr(error, "code", 0) or 0) if isinstance(error, DatabaseError) else 0
    if code == _TIMEOUT_EXCEEDED:
        return ValidationError(
            "the query takes longer than query.timeout_seconds allows; ask for less at once"
        )
    if code == _MEMORY_LIMIT_EXCEEDED:
        return UnavailableError("the query needs more memory than query.memory_bytes allows")
    kind = UnreadableError if code in UnreadableError.CODES else EngineError
    return kind(code, str(error))


def _utc(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value
