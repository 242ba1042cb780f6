"""A way from one sink to the broker that can be cut without a word to either side.

Best, the sink lives in a network namespace of its own: two pairs of virtual interfaces join it to
this one, one for the broker and one for all else. A cut gives the neighbours on the first a wrong
hardware address, so that every packet is lost and no connection is told. Where namespaces are not
permitted, a relay stands between sink and broker, and a cut makes it pass on nothing.
"""

import contextlib
import itertools
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self
from urllib.parse import urlsplit

from tests.support.cluster import ClusterProcess
from tests.support.ports import free_port

_WRONG = "02:00:00:00:00:99"
_CHUNK = 1 << 16


class Link(Protocol):
    """What a sink at the other end of it reaches the backends by."""

    kind: str
    listeners: dict[str, str]
    """Settings of the broker: the listener that the sink uses."""

    def attach(self, sink: ClusterProcess) -> None:
        """Have a sink that was not started use it."""
        ...

    def cut(self) -> None:
        """Lose every packet between sink and broker, both ways."""
        ...

    def heal(self) -> None:
        """Lose no more."""
        ...


class Relay:
    """Passes connections on to another port, unless it is told to hold everything."""

    def __init__(self, host: str, port: int, target: int) -> None:
        self.flowing = threading.Event()
        self.flowing.set()
        self._target = target
        self._server = socket.create_server((host, port))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.flowing.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._server.accept()
                threading.Thread(target=self._join, args=(one,), daemon=True).start()

    def _join(self, one: socket.socket) -> None:
        self.flowing.wait()
        try:
            other = socket.create_connection(("127.0.0.1", self._target))
        except OSError:
            one.close()
            return
        for source, sink in ((one, other), (other, one)):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                self.flowing.wait()
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class RelayedLink:
    """A relay between sink and broker."""

    kind = "relay"

    def __init__(self) -> None:
        inner, outer = free_port(), free_port()
        self._relay = Relay("127.0.0.1", outer, inner)
        self.listeners = _listeners(f"127.0.0.1:{inner}", f"127.0.0.1:{outer}")
        self._bootstrap = f"127.0.0.1:{outer}"

    def attach(self, sink: ClusterProcess) -> None:
        sink.environment["METERLINE_KAFKA__BOOTSTRAP"] = self._bootstrap

    def cut(self) -> None:
        self._relay.flowing.clear()

    def heal(self) -> None:
        self._relay.flowing.set()

    def close(self) -> None:
        self._relay.close()


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two virtual interfaces, the second one in the namespace."""

    here: str
    there: str
    near: str
    far: str


class NamespacedLink:
    """A network namespace."""

    kind = "network namespace"

    def __init__(self) -> None:
        name = secrets.token_hex(3)
        self._namespace = f"meterline-{name}"
        third = secrets.randbelow(256)
        self._pairs = [
            _Pair(f"ml{name}{n}a", f"ml{name}{n}b", f"10.253.{third}.{4 * n + 1}",
                  f"10.253.{third}.{4 * n + 2}")
            for n in range(2)
        ]  # fmt: skip
        self._broker, self._others = self._pairs
        self._relays: list[Relay] = []
        self._address = f"{self._broker.near}:{free_port()}"
        self.listeners = _listeners(self._address, self._address)

    def open(self) -> Self:
        """Make it. Raises `OSError` when that is not permitted."""
        try:
            _ip("netns", "add", self._namespace)
            _ip("-n", self._namespace, "link", "set", "lo", "up")
            for one in self._pairs:
                peer = ("peer", "name", one.there, "netns", self._namespace)
                _ip("link", "add", one.here, "type", "veth", *peer)
                _ip("address", "add", f"{one.near}/30", "dev", one.here)
                _ip("link", "set", one.here, "up")
                inside = ("-n", self._namespace)
                _ip(*inside, "address", "add", f"{one.far}/30", "dev", one.there)
                _ip(*inside, "link", "set", one.there, "up")
        except OSError:
            self.close()
            raise
        return self

    def attach(self, sink: ClusterProcess) -> None:
        sink.program = ["ip", "netns", "exec", self._namespace, *sink.program]
        sink.arguments += ["--host", self._others.far]
        sink.url = f"http://{self._others.far}:{sink.port}"
        sink.environment["METERLINE_KAFKA__BOOTSTRAP"] = self._address
        for name in ("METERLINE_DATABASE__URL", "METERLINE_CLICKHOUSE__URL"):
            url = sink.environment[name]
            port = urlsplit(url).port
            assert port is not None
            relay = Relay(self._others.near, 0, port)
            self._relays.append(relay)
            there = url.replace(f"127.0.0.1:{port}", f"{self._others.near}:{relay.port}")
            sink.environment[name] = there

    def cut(self) -> None:
        for place, address, device in self._ends():
            wrong = ("lladdr", _WRONG, "dev", device, "nud", "permanent")
            _ip(*place, "neighbour", "replace", address, *wrong)

    def heal(self) -> None:
        for place, address, device in self._ends():
            _ip(*place, "neighbour", "del", address, "dev", device)

    def close(self) -> None:
        for relay in self._relays:
            relay.close()
        for one in self._pairs:
            with contextlib.suppress(OSError):
                _ip("link", "del", one.here)
        with contextlib.suppress(OSError):
            _ip("netns", "del", self._namespace)

    def _ends(self) -> list[tuple[tuple[str, ...], str, str]]:
        pair = self._broker
        return [
            ((), pair.far, pair.here),
            (("-n", self._namespace), pair.near, pair.there),
        ]


@contextlib.contextmanager
def opened_link() -> Iterator[Link]:
    """The best link that is permitted here."""
    link: NamespacedLink | RelayedLink
    try:
        link = NamespacedLink().open()
    except OSError as error:
        print(f"no network namespaces here, so a relay: {error}")
        link = RelayedLink()
    try:
        yield link
    finally:
        link.close()


def _listeners(bind: str, advertised: str) -> dict[str, str]:
    return {
        "listeners": f"LINK://{bind}",
        "advertised.listeners": f"LINK://{advertised}",
        "listener.security.protocol.map": "LINK:PLAINTEXT",
    }


def _ip(*words: str) -> None:
    program = shutil.which("ip")
    if program is None or os.geteuid() != 0:
        raise PermissionError("needs ip, and to be root")
    done = subprocess.run([program, *words], capture_output=True, text=True, timeout=20)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(itertools.islice(words, 3))}: {done.stderr.strip()}")
