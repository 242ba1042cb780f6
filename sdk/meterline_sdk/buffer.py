"""Sending events in the background: the caller only puts them into a list.

A thread sends what has gathered, by size or by age, and at the end of the process. Its memory is
bounded; what to do when it is full is the caller's choice. Events that the server refuses for
good are handed to `on_drop`, and so is what could not be sent in time at the end.
"""

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from meterline_sdk import _json
from meterline_sdk._request import Request
from meterline_sdk._sync._client import Transport
from meterline_sdk._sync._resource import JSON
from meterline_sdk._sync.resources.events import Events
from meterline_sdk.errors import (
    APIError,
    BufferFullError,
    ConflictError,
    ConnectionFailedError,
    MeterlineError,
    NotFoundError,
)

logger = logging.getLogger("meterline_sdk")

Event = Mapping[str, Any]
OnDrop = Callable[[Sequence[Event], Exception], None]


def log_drop(events: Sequence[Event], error: Exception) -> None:
    """The default: say in the log that events were lost."""
    logger.error("%d usage events were not sent: %s", len(events), error)


class EventBuffer:
    """Takes events at once, and sends them soon. Threads may share it.

    `when_full`: `drop` hands new events to `on_drop`, `raise` raises `BufferFullError`. Neither
    makes the caller wait.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Event]], None],
        *,
        max_events: int = 10_000,
        batch_events: int = 500,
        max_age_seconds: float = 1.0,
        retry_seconds: float = 1.0,
        close_seconds: float = 10.0,
        when_full: Literal["drop", "raise"] = "drop",
        on_drop: OnDrop = log_drop,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._send = send
        self._max_events = max_events
        self._batch_events = batch_events
        self._max_age = max_age_seconds
        self._retry = retry_seconds
        self._close_seconds = close_seconds
        self._when_full = when_full
        self._on_drop = on_drop
        self._on_close = on_close
        self._waiting: deque[Event] = deque()
        self._sending = 0
        self._changed = threading.Condition()
        self._flushing = False
        self._closed = False
        self._thread: threading.Thread | None = None
        self._give_up_at: float | None = None
        _alive.add(self)

    def __len__(self) -> int:
        """Events that are not with the server yet."""
        return len(self._waiting) + self._sending

    def put(self, event: Event) -> bool:
        """Take an event; False when there was no room for it. Never waits for the network."""
        with self._changed:
            if self._closed:
                raise MeterlineError("the event buffer is closed")
            full = len(self) >= self._max_events
            if not full:
                self._waiting.append(event)
                self._start()
                if len(self._waiting) in (1, self._batch_events):
                    self._changed.notify_all()
        if full:
            error = BufferFullError(f"{self._max_events} events wait to be sent")
            if self._when_full == "raise":
                raise error
            self._on_drop([event], error)
        return not full

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until everything that was put is with the server; False when time ran out."""
        with self._changed:
            self._flushing = True
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: len(self) == 0, timeout_seconds)
            finally:
                self._flushing = False

    def close(self, timeout_seconds: float | None = None) -> None:
        """Send what is left, for so many seconds at most; the rest goes to `on_drop`."""
        seconds = self._close_seconds if timeout_seconds is None else timeout_seconds
        with self._changed:
            self._closed = True
            self._give_up_at = time.monotonic() + seconds
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds + 1.0)
        with self._changed:
            left = list(self._waiting)
            self._waiting.clear()
        if left:
            self._on_drop(left, ConnectionFailedError("the process ended before they were sent"))
        if self._on_close is not None:
            self._on_close()
        _alive.discard(self)

    def start_over(self) -> None:
        """In a forked child: the parent's thread is gone, and its events are the parent's."""
        self._waiting.clear()
        self._sending = 0
        self._changed = threading.Condition()
        self._thread = None

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="meterline-events", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
                if not self._closed and not self._flushing:
                    self._changed.wait_for(
                        lambda: (
                            len(self._waiting) >= self._batch_events
                            or self._closed
                            or self._flushing
                        ),
                        self._max_age,
                    )
                if self._closed and (not self._waiting or self._over()):
                    return
                count = min(len(self._waiting), self._batch_events)
                batch = [self._waiting.popleft() for _ in range(count)]
                self._sending = count
            self._deliver(batch)
            with self._changed:
                self._sending = 0
                self._changed.notify_all()

    def _deliver(self, batch: list[Event]) -> None:
        while batch:
            try:
                self._send(batch)
                return
            except APIError as error:
                if error.status < 500 and error.status not in (408, 429):
                    batch = self._without_refused(batch, error)
                    continue
            except MeterlineError:
                pass
            except Exception as error:
                self._on_drop(batch, error)
                return
            if self._over():
                with self._changed:
                    self._waiting.extendleft(reversed(batch))
                return
            with self._changed:
                self._changed.wait_for(lambda: self._closed, self._retry)

    def _without_refused(self, batch: list[Event], error: APIError) -> list[Event]:
        """The server names the bad events of a batch: the others are sent again without them."""
        found = error.said("validationErrors") or ()
        bad = {one.get("index") for one in found if isinstance(one, Mapping)} - {None}
        refused = [one for index, one in enumerate(batch) if index in bad] or batch
        self._on_drop(refused, error)
        return [one for index, one in enumerate(batch) if index not in bad] if bad else []

    def _over(self) -> bool:
        return self._give_up_at is not None and time.monotonic() >= self._give_up_at


_alive: "weakref.WeakSet[EventBuffer]" = weakref.WeakSet()


def _close_all() -> None:
    for buffer in list(_alive):
        buffer.close()


def _forget_all() -> None:
    for buffer in list(_alive):
        buffer.start_over()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def buffer_to(base_url: str, api_key: str | None, **options: Any) -> EventBuffer:
    """A buffer with a connection of its own: its thread shares nothing with the caller's."""
    transport = Transport(base_url, api_key)
    return EventBuffer(Events(transport).ingest, on_close=transport.close, **options)


def records_to(base_url: str, api_key: str | None, **options: Any) -> EventBuffer:
    """A buffer of requests (`path` and `body`), which are sent one by one, at once.

    Records name themselves, so that one which is sent again counts once. What is given back may
    have expired, or have been closed otherwise: then there is nothing to do (`lost`).
    """
    transport = Transport(base_url, api_key)

    def send(requests: Sequence[Event]) -> None:
        for one in requests:
            content = _json.dumps(one["body"])
            try:
                transport.send(Request("POST", one["path"], {}, content, JSON))
            except (ConflictError, NotFoundError):
                if not one.get("lost"):
                    raise

    return EventBuffer(send, on_close=transport.close, **{**options, "batch_events": 1})
