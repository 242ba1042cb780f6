"""Runs one server in this process: listens, serves, and stops without losing anything."""

import asyncio
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import uvicorn
import uvloop

from meterline.kernel.errors import ForbiddenError, UnavailableError
from meterline.server.assembly import assembled
from meterline.server.protocol import HttpProtocol
from meterline.server.sections import ServerSettings
from meterline.server.settings import Settings
from meterline.web.asgi import ASGIApp

logger = logging.getLogger(__name__)

_BACKLOG = 2048
_KEEP_ALIVE_SECONDS = 75
_COLLECTION = (20_000, 20, 20)
"""Requests make much that is gone with them, and few cycles: collections may be rare."""
_SWITCH_SECONDS = 0.0005
"""Threads that write to a disk need the interpreter for moments only, and requests wait for them:
with the usual 5 ms ingest is a tenth slower."""
_MERGES = "MergeMutate"
"""What the embedded engine calls its threads that merge parts in the background."""
_MERGES_NICE = 5


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises `MeterlineError` when it cannot start."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


async def serve(settings: Settings) -> None:
    """Open everything, listen, and serve until a signal; then close everything in order."""
    started = perf_counter()
    listener = _listen(settings.server)
    try:
        async with assembled(settings) as assembly:
            if assembly.needs_keys:
                is_open = await assembly.authenticator.is_open()
                _check_binding(settings.server.host, is_open)
            tune_interpreter()
            let_merges_wait()
            host, port = listener.getsockname()[:2]
            logger.info(
                "listening",
                extra={
                    "url": f"http://{f'[{host}]' if ':' in host else host}:{port}",
                    "role": settings.server.role,
                    "data_dir": str(settings.server.data_dir),
                    "seconds_to_start": round(perf_counter() - started, 3),
                },
            )
            await _run_server(assembly.app, listener, settings.server)
            logger.info("requests are over; finishing what was accepted")
    finally:
        listener.close()
    logger.info("stopped")


def tune_interpreter() -> None:
    """Suit the interpreter to a server that has made everything that lives as long as it does."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTION)
    gc.enable()
    sys.setswitchinterval(_SWITCH_SECONDS)


def let_merges_wait() -> None:
    """Have merges of the embedded engine give way to requests when processors are scarce.

    Only Linux has priorities of threads. The engine's own setting for it needs a privilege.
    """
    for name in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # It is gone.
            if name.read_text().strip() == _MERGES:
                os.setpriority(os.PRIO_PROCESS, int(name.parent.name), _MERGES_NICE)


def configured(app: ASGIApp, **others: Any) -> uvicorn.Config:
    """How a server speaks HTTP: `others` are uvicorn's."""
    return uvicorn.Config(
        app,
        http=HttpProtocol,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        **others,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _check_binding(host: str, is_open: bool) -> None:
    if not is_open:
        return
    if not is_loopback(host):
        raise ForbiddenError(
            f"refusing to listen on {host}: no API key exists, so anybody who can reach the"
            " server could read and write everything. Make a key with `meterline keys create`,"
            " or listen on 127.0.0.1"
        )
    logger.warning(
        "no API key exists: open to everybody on this machine, listening on loopback only;"
        " `meterline keys create` closes it"
    )


def _listen(settings: ServerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host.strip("[]"), settings.port))
    except OSError as error:
        listener.close()
        raise UnavailableError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror}"
        ) from None
    return listener


async def _run_server(app: ASGIApp, listener: socket.socket, settings: ServerSettings) -> None:
    config = configured(
        app,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace_seconds)),
    )
    server = _Server(config)
    with _on_stop_signals(server.stop):
        await server.serve(sockets=[listener])


class _Server(uvicorn.Server):
    """uvicorn, without its signal handling: that kills the process before our own clean-up."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """Finish the requests in flight; at the second call, drop them."""
        self.force_exit = self.should_exit
        self.should_exit = True


@contextmanager
def _on_stop_signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)

    def on_signal() -> None:
        logger.info("stopping: no new requests; those in flight are finished")
        stop()

    for number in signals:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        # From here on a signal must not cut the clean-up short: only SIGKILL does.
        for number in signals:
            loop.add_signal_handler(number, _ignore)


def _ignore() -> None:
    logger.info("already stopping")
