"""ClickHouse's HTTP protocol over the embedded engine, as far as our client speaks it.

    python -m tests.support.clickhouse_bridge FOLDER [--port N] [--password P] [--cluster C]

Tests start it through `tests.support.clickhouse`. It prints its address as a line of JSON, and ends
when its standard input does. What a server would do and this does not: `KILL QUERY` answers and
ends nothing, answers are never streamed, and there is no Keeper. With `--cluster` it is the one
server of a cluster of that name: `ON CLUSTER` is left out, replicated tables become plain ones, and
`Distributed` tables work. Limits of addresses and form fields are those of a server as it comes.

Faults are set by POST /_bridge/faults with a JSON array of objects: `kind`, and `match` (a part of
the statement), `times` (-1: always), `seconds`, `code`. `refuse` closes the connection before the
statement runs, `slow` waits before it, `fail` answers an error before it; `lose` closes the
connection after it, `undone` answers an error after it. GET /_bridge/statements tells the last
statements that came in.
"""

import argparse
import gzip
import json
import os
import re
import sys
import tempfile
import threading
import time
from base64 import b64decode
from collections import deque
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import lz4.frame  # type: ignore[import-untyped]
import zstandard

os.environ["TZ"] = "UTC"
import chdb  # noqa: E402

MAX_URI_BYTES = 1 << 20
MAX_FIELD_BYTES = 128 << 10
_HANDLES = 16
_NOT_OF_THE_ENGINE = {
    "buffer_size", "cancel_http_readonly_queries_on_client_close", "client_protocol_version",
    "compress", "database", "decompress", "default_format", "enable_http_compression",
    "http_headers_progress_interval_ms", "password", "query", "query_id", "quota_key", "readonly",
    "role", "send_progress_in_http_headers", "session_check", "session_id", "session_timeout",
    "user", "wait_end_of_query",
}  # fmt: skip
_INSERT_DATA = re.compile(rb"\s*(INSERT\s+INTO\s[^;]{1,100000}?)\s+FORMAT\s+(\w+)\s?", re.I | re.S)
_READS = re.compile(r"[\s(]*(SELECT|WITH|SHOW|DESC|DESCRIBE|EXISTS|EXPLAIN)\b", re.I)
_FORMAT = re.compile(r"\bFORMAT\s+(\w+)\s*;?\s*$", re.I)
_CODE = re.compile(r"Code: (\d+)\.")
_STATUS = {60: 404, 81: 404, 62: 400, 516: 403, 164: 403}


_CONFIG = """<clickhouse><tcp_port>9000</tcp_port><remote_servers><{0}><shard><replica>
<host>127.0.0.1</host><port>9000</port></replica></shard></{0}></remote_servers></clickhouse>"""
_ALONE = (
    (re.compile(r" ON CLUSTER '\w+'"), ""),
    (re.compile(r"\bReplicated(\w*MergeTree)\('[^']*', '[^']*'\)"), r"\1"),
    (
        re.compile(r"\breplicated_(deduplication_window = \d+), replicated_\w+_seconds = \d+"),
        r"non_replicated_\1",
    ),
)
"""What a cluster's statements become on a server without Keeper."""


class EngineFault(Exception):
    """An error that the engine, or a fault, answers."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Handle:
    """One connection to the engine, and what was set on it."""

    def __init__(self, path: str) -> None:
        self.connection: Any = chdb.connect(path)  # type: ignore[no-untyped-call]
        self.settings: dict[str, str] = {}
        self.database = "default"

    def differs(self, settings: dict[str, str], database: str) -> int:
        return len(self.settings.items() ^ settings.items()) + (self.database != database)

    def become(self, settings: dict[str, str], database: str) -> None:
        changes = [
            f"{name} = {_quoted(value)}"
            for name, value in settings.items()
            if self.settings.get(name) != value
        ]
        changes += [f"{name} = DEFAULT" for name in self.settings.keys() - settings.keys()]
        if changes:
            self.run(f"SET {', '.join(changes)}")
            self.settings = dict(settings)
        if database != self.database:
            self.run(f"USE `{database}`")
            self.database = database

    def run(self, sql: str, fmt: str = "TabSeparated", params: Any = None) -> Any:
        try:
            return self.connection.query(sql, fmt, params=params or {})
        except Exception as error:
            found = _CODE.search(str(error))
            raise EngineFault(int(found[1]) if found else 1002, str(error)) from None


class Engine:
    """Handles, each for one statement at a time; the one that needs the fewest changes is taken."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._free = [Handle(path)]
        self._lock = threading.Lock()
        self._room = threading.Semaphore(_HANDLES)
        self._sessions: dict[str, Handle] = {}

    def run(
        self, sql: str, fmt: str, params: Any, settings: dict[str, str], database: str, session: str
    ) -> Any:
        with self._room:
            handle = self._take(settings, database, session)
            try:
                if not session:
                    handle.become(settings, database)
                result = handle.run(sql, fmt, params)
            except EngineFault:
                # Its next answer might begin with what this one left behind.
                handle.connection.close()
                self._sessions.pop(session, None)
                raise
            with self._lock:
                if session:
                    self._sessions[session] = handle
                else:
                    self._free.append(handle)
            return result

    def _take(self, settings: dict[str, str], database: str, session: str) -> Handle:
        with self._lock:
            if session in self._sessions:
                return self._sessions.pop(session)
            if self._free:
                best = min(self._free, key=lambda one: one.differs(settings, database))
                self._free.remove(best)
                return best
        return Handle(self._path)

    def close(self) -> None:
        for handle in self._free:
            handle.connection.close()


class State:
    """What the requests share."""

    def __init__(self, engine: Engine, user: str, password: str, clustered: bool) -> None:
        self.engine = engine
        self.clustered = clustered
        self.login = f"{user}:{password}"
        self.faults: list[dict[str, Any]] = []
        self.statements: deque[dict[str, Any]] = deque(maxlen=10_000)
        self.lock = threading.Lock()

    def fault(self, sql: str) -> dict[str, Any] | None:
        with self.lock:
            for one in self.faults:
                if one.get("times", 1) != 0 and one.get("match", "") in sql:
                    one["times"] = one.get("times", 1) - 1
                    return one
        return None


class Request(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    state: State

    def handle_one_request(self) -> None:
        # As the standard library's, but for the longest request line.
        self.raw_requestline = self.rfile.readline(MAX_URI_BYTES + 100)
        if not self.raw_requestline:
            self.close_connection = True
            return
        if not self.raw_requestline.endswith(b"\n"):
            self.requestline, self.request_version, self.command = "", "HTTP/1.1", ""
            self.close_connection = True
            self._answer(400, b"Code: 1000. DB::Exception: Too long URI", {})
            return
        if self.parse_request():
            self._serve()
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _serve(self) -> None:
        place = urlsplit(self.path)
        params = parse_qsl(place.query, keep_blank_values=True, max_num_fields=1_000_000)
        body = self._body()
        if place.path == "/ping":
            return self._ping()
        if place.path.startswith("/_bridge/"):
            return self._control(place.path, body)
        try:
            values, sql, data = self._read(params, body)
            self._statement(values, sql, data)
        except EngineFault as error:
            self._refuse(error)
        return None

    def _ping(self) -> None:
        fault = self.state.fault("/ping")
        if fault is not None and fault["kind"] in ("refuse", "lose"):
            self.close_connection = True
            return
        self._answer(200, b"Ok.\n", {})

    def _control(self, path: str, body: bytes) -> None:
        with self.state.lock:
            if path == "/_bridge/faults":
                self.state.faults = json.loads(body or b"[]")
            told = json.dumps(list(self.state.statements)).encode()
        self._answer(200, told if path == "/_bridge/statements" else b"", {})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            body = b"".join(parts)
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match self.headers.get("Content-Encoding"):
            case "lz4":
                return lz4.frame.decompress(body)  # type: ignore[no-any-return]
            case "zstd":
                return zstandard.ZstdDecompressor().decompressobj().decompress(body)
            case "gzip":
                return gzip.decompress(body)
        return body

    def _read(
        self, params: list[tuple[str, str]], body: bytes
    ) -> tuple[dict[str, str], str, tuple[str, bytes] | None]:
        """The parameters, the statement, and the format and bytes of an INSERT's data."""
        if self.headers.get("Content-Type", "").startswith("multipart/form-data"):
            params = params + _form(self.headers["Content-Type"], body)
            body = b""
        for name, value in params:
            if len(value.encode()) > MAX_FIELD_BYTES:
                raise EngineFault(1000, f"Code: 1000. DB::Exception: Field {name} is too long")
        values = dict(params)
        head = values.get("query", "").encode()
        found = _INSERT_DATA.fullmatch(head + b" ")
        if found is not None:
            # The usual way, without a copy of many megabytes.
            return values, found[1].decode(), (found[2].decode(), body)
        whole = b"\n".join(part for part in (head, body) if part)
        found = _INSERT_DATA.match(whole)
        if found is None:
            return values, whole.decode("utf-8", "surrogateescape"), None
        return values, found[1].decode(), (found[2].decode(), whole[found.end() :])

    def _statement(self, values: dict[str, str], sql: str, data: tuple[str, bytes] | None) -> None:
        self._check_login()
        settings = {
            name: value
            for name, value in values.items()
            if name not in _NOT_OF_THE_ENGINE and not name.startswith("param_")
        }
        query_id = values.get("query_id") or os.urandom(8).hex()
        with self.state.lock:
            told: dict[str, Any] = {"query_id": query_id, "sql": sql[:300], "settings": settings}
            told["readonly"] = values.get("readonly")
            self.state.statements.append(told)
        fault = self.state.fault(sql) or {"kind": ""}
        failure = EngineFault(
            fault.get("code", 999), f"Code: {fault.get('code', 999)}. DB::Exception: injected."
        )
        if fault["kind"] == "refuse":
            self.close_connection = True
            return
        if fault["kind"] == "fail":
            raise failure
        if fault["kind"] == "slow":
            time.sleep(fault["seconds"])
        if values.get("readonly", "0") != "0" and not _READS.match(sql):
            raise EngineFault(164, "Code: 164. DB::Exception: Cannot execute it in readonly mode.")
        params = {name[6:]: text for name, text in values.items() if name.startswith("param_")}
        session = values.get("session_id", "")
        answer, headers = self._run(sql, data, params, settings, values, session)
        if fault["kind"] == "lose":
            self.close_connection = True
            return
        if fault["kind"] == "undone":
            raise failure
        headers["X-ClickHouse-Query-Id"] = query_id
        self._answer(200, *self._encoded(answer, headers, values))

    def _run(
        self,
        sql: str,
        data: tuple[str, bytes] | None,
        params: dict[str, str],
        settings: dict[str, str],
        values: dict[str, str],
        session: str,
    ) -> tuple[bytes, dict[str, str]]:
        if sql.lstrip().upper().startswith("KILL QUERY"):
            return b"", {}
        for pattern, instead in _ALONE if self.state.clustered and not _READS.match(sql) else ():
            sql = pattern.sub(instead, sql)
        database = values.get("database", "default")
        engine = self.state.engine
        if data is not None:
            with tempfile.NamedTemporaryFile(suffix=".data", dir=_scratch()) as file:
                file.write(data[1])
                file.flush()
                insert = f"{sql} FROM INFILE '{file.name}' FORMAT {data[0]}"
                result = engine.run(insert, "TabSeparated", params, settings, database, session)
            written = {"written_rows": result.rows_read(), "written_bytes": result.bytes_read()}
            return b"", {"X-ClickHouse-Summary": _summary(result, written)}
        named = _FORMAT.search(sql)
        fmt = named[1] if named else values.get("default_format", "TabSeparated")
        result = engine.run(sql, fmt, params, settings, database, session)
        headers = {"X-ClickHouse-Summary": _summary(result, {})}
        if _READS.match(sql):
            headers["X-ClickHouse-Format"] = fmt
        return result.bytes() or b"", headers

    def _encoded(
        self, answer: bytes, headers: dict[str, str], values: dict[str, str]
    ) -> tuple[bytes, dict[str, str]]:
        if values.get("enable_http_compression") != "1":
            return answer, headers
        accepted = [one.strip() for one in self.headers.get("Accept-Encoding", "").split(",")]
        coders: dict[str, Any] = {
            "lz4": lz4.frame.compress,
            "zstd": zstandard.ZstdCompressor().compress,
            "gzip": gzip.compress,
        }
        for name in accepted:
            if name in coders:
                return coders[name](answer), {**headers, "Content-Encoding": name}
        return answer, headers

    def _check_login(self) -> None:
        kind, _, given = self.headers.get("Authorization", "").partition(" ")
        if kind == "Basic" and b64decode(given).decode() == self.state.login:
            return
        raise EngineFault(516, "Code: 516. DB::Exception: default: Authentication failed.")

    def _refuse(self, error: EngineFault) -> None:
        headers = {"X-ClickHouse-Exception-Code": str(error.code)}
        self._answer(_STATUS.get(error.code, 500), str(error).encode() + b"\n", headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        for name, value in {"X-ClickHouse-Timezone": "UTC", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _serve


def _form(content_type: str, body: bytes) -> list[tuple[str, str]]:
    """The fields of a multipart body."""
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + body)
    fields = []
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        fields.append((str(name), content.decode()))
    return fields


def _summary(result: Any, more: dict[str, int]) -> str:
    told = {"read_rows": result.rows_read(), "read_bytes": result.bytes_read(), **more}
    return json.dumps({name: str(value) for name, value in told.items()})


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _scratch() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


class Server(ThreadingHTTPServer):
    """Threads that do not keep the process alive."""

    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def main() -> None:
    given = argparse.ArgumentParser()
    given.add_argument("folder", type=Path)
    given.add_argument("--port", type=int, default=0)
    given.add_argument("--user", default="default")
    given.add_argument("--password", default="")
    given.add_argument("--cluster", default="")
    options = given.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    path = str(options.folder.resolve())
    if options.cluster:
        config = options.folder.with_suffix(".xml").resolve()
        config.write_text(_CONFIG.format(options.cluster))
        path += f"?config-file={config}"
    engine = Engine(path)
    Request.state = State(engine, options.user, options.password, bool(options.cluster))
    server = Server(("127.0.0.1", options.port), Request)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}), flush=True)
    sys.stdin.read()
    server.server_close()
    Request.state.engine.close()
    os._exit(0)


if __name__ == "__main__":
    main()
