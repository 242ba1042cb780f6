"""An Apache Kafka broker of the jars in `tests/kafka/pom.xml`, thrown away at the end.

For tests, fault tests and benchmarks:

    with KafkaBroker(require_class_path()) as broker:
        ...  # broker.bootstrap is "127.0.0.1:PORT"
        broker.freeze(); broker.thaw()     # SIGSTOP, SIGCONT
        broker.kill(); broker.start()      # kill -9, and again on the same ports and data
        broker.stop(); broker.start()      # a tidy stop

One node that is broker and controller (KRaft), on loopback ports of its own, with its data in a
temporary folder. It is up two seconds after `start`. All methods block. Tests share one broker
by the fixture `kafka_broker`, with topics of their own; one that stops or freezes the broker
starts its own. Outside pytest, use `find_class_path`.
"""

import base64
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.support.parts import missing_part
from tests.support.ports import free_port

_FOLDER = Path(__file__).parents[1] / "kafka"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "auto.create.topics.enable": "false",
    # After kill -9 the controller takes the broker back once its old session is over.
    "broker.session.timeout.ms": "1500",
    "broker.heartbeat.interval.ms": "300",
    # A tidy stop need not wait for another broker to take over.
    "controlled.shutdown.enable": "false",
}
_ADDED = ("listeners", "advertised.listeners", "listener.security.protocol.map")
_LOGGING = """\
status=error
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c{1}: %m%n
rootLogger.level=info
rootLogger.appenderRef.out.ref=out
"""


def find_class_path() -> str | None:
    """The broker's class path; None without Java 17 or Maven.

    Maven fetches it on the first call after a change of the pom; later calls read a file.
    """
    maven = shutil.which("mvn")
    if maven is None or shutil.which("java") is None:
        return None
    target = _FOLDER / "target"
    target.mkdir(exist_ok=True)
    found = target / ("classpath-" + hashlib.sha256(_pom().read_bytes()).hexdigest()[:16])
    with (target / ".lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (found.is_file() and all(map(os.path.exists, found.read_text().split(":")))):
            part = found.with_suffix(".part")
            goal = ["dependency:build-classpath", f"-Dmdep.outputFile={part}"]
            command = [maven, "-q", "-B", "-f", str(_pom()), *goal]
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if done.returncode != 0:
                raise RuntimeError(f"Maven cannot fetch the broker: {done.stdout}{done.stderr}")
            part.rename(found)
    return found.read_text().strip()


def require_class_path() -> str:
    """The broker's class path. Skips the test when there is none; in CI, fails it."""
    return find_class_path() or missing_part("java or mvn, for Apache Kafka,")


class KafkaBroker:
    """A broker in a folder of its own. A context manager: it runs until the block ends."""

    def __init__(
        self, class_path: str, *, heap_mib: int = 384, settings: Mapping[str, str] | None = None
    ) -> None:
        """`settings` replace those of server.properties; listeners are added to those there."""
        self._class_path = class_path
        self._heap = f"-Xmx{heap_mib}m"
        self._folder = Path(tempfile.mkdtemp(prefix="meterline-kafka-"))
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        controller = free_port()
        plain = f"PLAINTEXT://127.0.0.1:{self.port}"
        self._settings = {
            **_SETTINGS,
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": f"{plain},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": plain,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._folder / "data"),
        }
        for name, value in (settings or {}).items():
            there = self._settings.get(name) if name in _ADDED else None
            self._settings[name] = f"{there},{value}" if there else value

    def __enter__(self) -> Self:
        try:
            self._format()
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
    def bootstrap(self) -> str:
        """The address that clients begin with."""
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the broker that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the broker wrote so far."""
        file = self._folder / "log"
        return file.read_text(errors="replace") if file.exists() else ""

    def start(self) -> None:
        """Start the broker, and wait until it takes requests."""
        begin = len(self.log)
        options = [self._heap, "-XX:+UseSerialGC", "-Xshare:auto"]
        options += [f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}"]
        command = ["java", *options, "-cp", self._class_path, "kafka.Kafka"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(self._folder / "server.properties")], stdout=log, stderr=log
            )
        until = time.monotonic() + _START_SECONDS
        while "Kafka Server started" not in self.log[begin:]:
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"the broker did not start:\n{self.log[begin:][-4000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop the broker in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """`kill -9`."""
        self._end(signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the broker and remove its data."""
        if self._process is not None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _end(self, how: signal.Signals) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)

    def _format(self) -> None:
        """What `kafka-storage.sh format` does, without starting a Java process for it."""
        identity = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        data = self._folder / "data"
        data.mkdir()
        (data / "meta.properties").write_text(
            f"version=1\ncluster.id={identity}\nnode.id=1\ndirectory.id={identity}\n"
        )
        lines = [f"{name}={value}\n" for name, value in self._settings.items()]
        (self._folder / "server.properties").write_text("".join(lines))
        (self._folder / "log4j2.properties").write_text(_LOGGING)


class OutsideBroker(KafkaBroker):
    """A broker that somebody else runs; nothing can be done to it."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap

    def __enter__(self) -> Self:
        return self

    @property
    def bootstrap(self) -> str:
        """The address that clients begin with."""
        return self._bootstrap

    def close(self) -> None:
        """Leave it alone."""


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """A broker that tests share; each uses topics of its own.

    `METERLINE_TEST_KAFKA_SERVERS` names one that runs already.
    """
    outside = os.environ.get("METERLINE_TEST_KAFKA_SERVERS")
    with OutsideBroker(outside) if outside else KafkaBroker(require_class_path()) as broker:
        yield broker


def _pom() -> Path:
    return _FOLDER / "pom.xml"
