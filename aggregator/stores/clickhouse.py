"""The engine through clickhouse-connect: ClickHouse over HTTP, or chDB in this process.

The only file that imports either. Both speak the same SQL; they differ in how a statement gets
there: `_Embedded` runs one at a time on each of a few handles, `_Remote` posts to a server.
Statements run in threads, whose number is how many may run at once.
"""

import asyncio
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError
from clickhouse_connect.driver.httpclient import HttpClient
from clickhouse_connect.driver.httputil import get_pool_manager
from urllib3 import PoolManager, Retry

from aggregator.stores.engine import Engine, Params, Settings
from aggregator.stores.layout import Layout
from aggregator.stores.statements import in_parts, translated, with_settings
from meterline.kernel.errors import ValidationError

T = TypeVar("T")

_SESSION: dict[str, str | int] = {
    "session_timezone": "UTC",
    "async_insert": 0,
    "use_query_condition_cache": 0,
    "enable_extended_results_for_datetime_functions": 1,
    # Many series make one long statement.
    "max_query_size": 64 << 20,
    "max_ast_elements": 1_000_000,
    "max_expanded_ast_elements": 2_000_000,
}
_MARGIN_SECONDS = 5
_UNKNOWN_DATABASE = 81
# What may have been done is never sent again: an insert without a token would count twice.
_ONCE = Retry(total=1, connect=1, read=False, redirect=0, status=0, other=0)


@dataclass(frozen=True, slots=True)
class ClickHouseOptions:
    """A ClickHouse server, or a cluster that is reached through one of its servers."""

    url: str = "http://localhost:8123"
    """`http` or `https`. Always the same server, for its memory holds the sink's scratch tables."""
    database: str = "default"
    user: str = "default"
    password: str = field(default="", repr=False)
    verify: bool = True
    """Whether the server must show a certificate that is trusted."""
    ca_file: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    connect_timeout_seconds: int = 5
    statement_timeout_seconds: int = 120
    """The longest that a statement which writes may run."""
    compress: bool = False
    """Whether answers are compressed on their way."""
    insert_quorum: int = 0
    """Replicas that must have an insert before it counts as done; 0 is any one.

    With fewer than all of them, a query of another replica can be behind.
    """
    layout: Layout = field(default_factory=Layout)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
            raise ValidationError("the event store's URL must be http(s)://host[:port]")


class _Way(Protocol):
    """How statements reach the engine."""

    def borrow(self, *, reads: bool) -> Client: ...

    def give_back(self, client: Client, *, failed: bool) -> None: ...

    def execute(
        self, client: Client, sql: str, params: Params, settings: Settings, query_id: str | None
    ) -> None: ...

    def block(self, body: bytes) -> bytes | Generator[bytes, None, None]: ...

    def close(self) -> None: ...


class _Embedded:
    """chDB over a data directory, which one process may open."""

    def __init__(self, path: Path, handles: int) -> None:
        # The engine takes its zone from the process; windows are given theirs by parameter.
        os.environ["TZ"] = "UTC"
        path.mkdir(parents=True, exist_ok=True)
        self._path = str(path)
        self._free: SimpleQueue[Client] = SimpleQueue()
        for _ in range(handles):
            self._free.put(self._open())

    def _open(self) -> Client:
        return clickhouse_connect.get_client(
            interface="chdb", path=self._path, settings=_SESSION, tz_mode="aware"
        )

    def borrow(self, *, reads: bool) -> Client:
        return self._free.get()

    def give_back(self, client: Client, *, failed: bool) -> None:
        if failed:
            # A failed statement can leave bytes in its handle that would be put before the next
            # answer (seen with chDB 26.9), so the handle is not used again.
            client.close()
            client = self._open()
        self._free.put(client)

    def execute(
        self, client: Client, sql: str, params: Params, settings: Settings, query_id: str | None
    ) -> None:
        # The driver sets and resets each setting by a statement of its own, which costs more than
        # many an insert does.
        statement, rest = with_settings(sql, settings)
        client.command(statement, parameters=dict(params), settings=rest)

    def block(self, body: bytes) -> bytes | Generator[bytes, None, None]:
        return body

    def close(self) -> None:
        while not self._free.empty():
            self._free.get().close()


class _Remote:
    """A server over HTTP. Connects at the first statement, and anew after it was away."""

    def __init__(
        self, options: ClickHouseOptions, handles: int, query_timeout_seconds: float | None
    ) -> None:
        self._options = options
        self._timeouts = {
            True: query_timeout_seconds or options.statement_timeout_seconds,
            False: options.statement_timeout_seconds,
        }
        self._pool = _pool(options, handles)
        self._clients: dict[bool, Client] = {}

    def borrow(self, *, reads: bool) -> Client:
        if reads not in self._clients:
            # Threads that connect at once make a client too many, and none waits for another.
            self._clients[reads] = self._connect(reads, self._options.database)
        return self._clients[reads]

    def _connect(self, reads: bool, database: str | None) -> Client:
        options, parts = self._options, urlsplit(self._options.url)
        session = {**_SESSION, **options.layout.session}
        # The server gives up before the client does, so that nothing runs behind our back.
        session["max_execution_time"] = str(self._timeouts[reads])
        if options.insert_quorum and not reads:
            session["insert_quorum"] = options.insert_quorum
        client = clickhouse_connect.get_client(
            interface=parts.scheme,
            host=parts.hostname,
            port=parts.port or (8443 if parts.scheme == "https" else 8123),
            proxy_path=parts.path,
            username=options.user,
            password=options.password,
            database=database,
            client_cert=options.client_certificate,
            connect_timeout=options.connect_timeout_seconds,
            send_receive_timeout=round(self._timeouts[reads]) + _MARGIN_SECONDS,
            compress=options.compress,
            show_clickhouse_errors="scrub",
            pool_mgr=self._pool,
            settings=session,
            tz_mode="aware",
            autogenerate_session_id=False,
        )
        if isinstance(client, HttpClient) and not reads:
            client.http_retries = cast(int, _ONCE)
        return client

    def give_back(self, client: Client, *, failed: bool) -> None:
        """Nothing: a client without a session serves many threads."""

    def execute(
        self, client: Client, sql: str, params: Params, settings: Settings, query_id: str | None
    ) -> None:
        given = dict(settings) if query_id is None else {**settings, "query_id": query_id}
        statement, parts = in_parts(sql, params)
        # `command` would put parameters into the address, however long they are.
        client.raw_query(statement, parameters=parts, settings=given)

    def block(self, body: bytes) -> bytes | Generator[bytes, None, None]:
        # The driver sends bytes a second time when the connection breaks, token or not.
        return (part for part in (body,))

    def make_database(self) -> None:
        options = self._options
        try:
            self.borrow(reads=True)
        except ClickHouseError as error:
            if getattr(error, "code", None) != _UNKNOWN_DATABASE:
                raise
            name = options.database.replace("\\", "\\\\").replace("`", "\\`")
            client = self._connect(False, None)
            client.command(
                f"CREATE DATABASE IF NOT EXISTS `{name}`{options.layout.on_cluster}",
                use_database=False,
            )

    def close(self) -> None:
        self._clients.clear()
        self._pool.clear()


def _pool(options: ClickHouseOptions, handles: int) -> PoolManager:
    secure: dict[str, Any] = {}
    if options.url.startswith("https:"):
        secure = {
            "verify": options.verify,
            "ca_cert": options.ca_file,
            "client_cert": options.client_certificate,
            "client_cert_key": options.client_key,
        }
    pool: PoolManager = get_pool_manager(maxsize=handles, **secure)
    return pool


class ClickHouseEngine:
    """`Engine` over a chDB data directory or a ClickHouse server.

    `handles` is how many statements may run at once. Reads are stopped after
    `query_timeout_seconds` and above `query_memory_bytes`. A data directory is opened at once, and
    an error when another process has it; a server is first called by the first statement.
    """

    def __init__(
        self,
        where: Path | ClickHouseOptions,
        *,
        handles: int = 4,
        query_timeout_seconds: float | None = None,
        query_memory_bytes: int | None = None,
    ) -> None:
        self._reads: dict[str, str | int] = {}
        self._limited = query_timeout_seconds is not None or query_memory_bytes is not None
        if query_timeout_seconds is not None:
            self._reads["max_execution_time"] = str(query_timeout_seconds)
        if query_memory_bytes is not None:
            self._reads["max_memory_usage"] = query_memory_bytes
        self._remote: _Remote | None = None
        self._way: _Way
        if isinstance(where, Path):
            self._way = _Embedded(where, handles)
            self._layout = Layout()
        else:
            self._way = self._remote = _Remote(where, handles, query_timeout_seconds)
            self._layout = where.layout
            # Only what says that it reads is ended by the server when the client goes away.
            self._reads["readonly"] = 2
        self._threads = ThreadPoolExecutor(handles, thread_name_prefix="clickhouse")

    @property
    def layout(self) -> Layout:
        return self._layout

    async def query(self, sql: str, params: Params | None = None) -> list[tuple[Any, ...]]:
        statement, parts = in_parts(sql, params or {})

        def run(client: Client) -> list[tuple[Any, ...]]:
            result = client.query(statement, parameters=parts, settings=self._reads)
            return [tuple(map(_utc, row)) for row in result.result_rows]

        return await self._run(run, reads=True)

    async def fetch(self, sql: str, fmt: str, params: Params | None = None) -> bytes:
        statement, parts = in_parts(sql, params or {})

        def run(client: Client) -> bytes:
            return client.raw_query(statement, parameters=parts, fmt=fmt, settings=self._reads)

        return await self._run(run, reads=True)

    async def execute(
        self,
        sql: str,
        params: Params | None = None,
        settings: Settings | None = None,
        query_id: str | None = None,
    ) -> None:
        def run(client: Client) -> None:
            self._way.execute(client, sql, params or {}, settings or {}, query_id)

        await self._run(run, reads=False)

    async def load(
        self,
        table: str,
        columns: Sequence[str],
        fmt: str,
        body: bytes,
        settings: Settings | None = None,
    ) -> None:
        def run(client: Client) -> None:
            block = self._way.block(body)
            client.raw_insert(table, list(columns), block, settings=dict(settings or {}), fmt=fmt)

        await self._run(run, reads=False)

    async def kill(self, prefix: str) -> None:
        if self._remote is not None:
            await self.execute(
                f"KILL QUERY{self._layout.on_cluster}"
                " WHERE startsWith(query_id, {prefix:String}) SYNC",
                {"prefix": prefix},
            )

    async def prepare(self) -> None:
        if self._remote is not None:
            make = self._remote.make_database
            await self._in_thread(lambda: self._or_raise(make, reads=False))

    async def close(self) -> None:
        """Release every handle and connection."""
        await asyncio.to_thread(self._threads.shutdown)
        self._way.close()

    async def _run(self, work: Callable[[Client], T], *, reads: bool) -> T:
        return await self._in_thread(
            lambda: self._or_raise(lambda: self._with(work, reads), reads=reads)
        )

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _with(self, work: Callable[[Client], T], reads: bool) -> T:
        client, failed = self._way.borrow(reads=reads), False
        try:
            return work(client)
        except ClickHouseError:
            failed = True
            raise
        finally:
            self._way.give_back(client, failed=failed)

    def _or_raise(self, work: Callable[[], T], *, reads: bool) -> T:
        try:
            return work()
        except ClickHouseError as error:
            lost = self._remote is not None and isinstance(error, OperationalError)
            # The driver's own error is left out of the chain: its text can be very long, and
            # carries the parameters.
            wrong = translated(error, limited=reads and self._limited, lost=lost)
            raise wrong from wrong.__cause__


def _utc(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    return value


def _is_engine(engine: ClickHouseEngine) -> Engine:
    return engine
