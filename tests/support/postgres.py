"""A PostgreSQL cluster of the system's binaries, thrown away at the end.

For tests and benchmarks. It listens on a loopback port with a password, sorts text by language
(so that nothing relies on the order of bytes by accident), and makes databases of the newest
schema by copying a template.
"""

import ctypes
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.migrating import migrate_in_thread
from tests.support.parts import missing_part
from tests.support.ports import free_port

_TEMPLATE = "meterline_template"
_START_SECONDS = 60.0
_PLAIN = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def find_binaries() -> Path | None:
    """The folder with `postgres`, `initdb` and `psql`; None when there is none."""
    folders = [Path(one) for one in os.environ.get("PATH", "").split(os.pathsep) if one]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        real = (folder / "postgres").resolve().parent
        if all((real / name).exists() for name in ("postgres", "initdb", "psql")):
            return real
    return None


class PostgresCluster:
    """A cluster in a folder of its own. A context manager: it runs until the block ends.

    `durable` keeps what was committed through a power cut, as in production; off, for tests that
    need no such thing, it is far quicker. Everything here blocks the caller.
    """

    def __init__(self, binaries: Path, *, durable: bool = False, options: tuple[str, ...] = ()):
        self._binaries = binaries
        self._options = (*(() if durable else _PLAIN), *options)
        self._folder = Path(tempfile.mkdtemp(prefix="meterline-postgres-"))
        self._user = _other_user()
        if self._user is not None:
            shutil.chown(self._folder, self._user)
        self._password = secrets.token_hex(8)
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        self.port = 0

    def __enter__(self) -> Self:
        try:
            self._init()
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process id of the server that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the server wrote so far."""
        return (self._folder / "log").read_text(errors="replace")

    def url(self, name: str) -> str:
        """The URL of one of its databases."""
        return f"postgresql://meterline:{self._password}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start the server, and wait until it answers. The port stays the same."""
        self.port = self.port or free_port()
        arguments = ["-D", self._data, "-p", str(self.port), "-c", "listen_addresses=127.0.0.1"]
        for option in (f"unix_socket_directories={self._folder}", *self._options):
            arguments += ["-c", option]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder,
                user=self._user, start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        self._wait_until_it_answers()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends sessions in order, SIGQUIT at once, without a checkpoint."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_START_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Kill the server and all of its children, as a crash of the machine would."""
        if self._process is not None:
            for pid in reversed(self._pids()):
                _send(pid, signal.SIGKILL)
            self._process.wait(_START_SECONDS)
            self._process = None

    def restart(self) -> None:
        """Stop in order, and start again."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the server and its children; connections stay open and nothing answers."""
        for pid in self._pids():
            _send(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on."""
        for pid in reversed(self._pids()):
            _send(pid, signal.SIGCONT)

    def close(self) -> None:
        """Stop the server and remove its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def create_database(self, *, empty: bool = False) -> str:
        """The URL of a new database, of the newest schema unless it shall be `empty`."""
        self._made += 1
        name = f"test_{self._made}"
        if empty:
            self.sql(f"CREATE DATABASE {name}")
        else:
            if _TEMPLATE not in self.sql("SELECT datname FROM pg_database"):
                self._make_template()
            self.sql(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        self.sql(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def sql(self, statement: str, database: str = "postgres") -> list[str]:
        """Run a statement as the superuser; the lines of the answer."""
        done = subprocess.run(
            [self._binaries / "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement,
             self.url(database)],
            capture_output=True, text=True, check=False, timeout=_START_SECONDS,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(done.stderr)
        return done.stdout.splitlines()

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _init(self) -> None:
        secret = self._folder / "password"
        secret.write_text(self._password)
        if self._user is not None:
            shutil.chown(secret, self._user)
        done = subprocess.run(
            [self._binaries / "initdb", "-D", self._data, "-U", "meterline", "--encoding=UTF8",
             "--locale=C", "--locale-provider=icu", "--icu-locale=en",
             "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"],
            capture_output=True, text=True, check=False, cwd=self._folder, user=self._user,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(done.stderr or done.stdout)

    def _make_template(self) -> None:
        self.sql(f"CREATE DATABASE {_TEMPLATE}")
        try:
            migrate_in_thread(self.url(_TEMPLATE))
        except BaseException:
            self.sql(f"DROP DATABASE {_TEMPLATE} WITH (FORCE)")
            raise

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.sql("SELECT 1")
            except RuntimeError as error:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL does not start: {self.log}") from error
                time.sleep(0.02)
            else:
                return

    def _pids(self) -> list[int]:
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        try:
            return [self.pid, *(int(pid) for pid in children.read_text().split())]
        except OSError:
            return [self.pid]


_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def _end_with_parent() -> None:
    """Called in the child: should the tests be killed, the server stops by itself."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _send(pid: int, how: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, how)


def _other_user() -> str | None:
    """Who runs the server: PostgreSQL refuses to be root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def require_binaries() -> Path:
    """The folder of PostgreSQL's programs. Skips without them; fails in CI."""
    found = find_binaries()
    return found if found is not None else missing_part("PostgreSQL")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A cluster that tests share, each with databases of its own; not durable."""
    with PostgresCluster(require_binaries()) as cluster:
        yield cluster


@pytest.fixture
def durable_postgres() -> Iterator[PostgresCluster]:
    """A cluster of the test's own, to be killed and restarted; durable as in production."""
    with PostgresCluster(require_binaries(), durable=True) as cluster:
        yield cluster
