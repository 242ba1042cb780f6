"""Sending events in the background: the caller only puts them into a list.

Threads send what has gathered, by size or by age, and at the end of the process. Memory is bounded;
what to do when it is full is the caller's choice. Events that the server refuses for good are
handed to `on_drop`, and so is what was not sent, or not answered, in time at the end.
"""

import atexit
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from meterline_sdk import _json
from meterline_sdk._request import RETRIED
from meterline_sdk.errors import APIError, BufferFullError, ConnectionFailedError, MeterlineError

logger = logging.getLogger("meterline_sdk")

BATCH_BYTES = 4 * 1024 * 1024
"""A batch is not larger than this, unless a single event is: servers take 16 MiB."""

Event = Mapping[str, Any]
OnDrop = Callable[[Sequence[Event], Exception], None]


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event, and the JSON that is sent of it.

    It is written when the event is put: one that cannot be written harms no other, and what the
    caller does with it afterwards changes nothing.
    """

    event: Event
    content: bytes


_Parts = list[list[Waiting]]
"""What a thread still has to send of a batch; the last part is next."""


def log_drop(events: Sequence[Event], error: Exception) -> None:
    """The default: say in the log that events were lost."""
    logger.error("%d usage events were not sent: %s", len(events), error)


class EventBuffer:
    """Takes events at once, and sends them soon. Threads may share it.

    `when_full`: `drop` hands new events to `on_drop`, `raise` raises `BufferFullError`. Neither
    makes the caller wait. `senders` threads send at most, each one batch at a time.
    `on_drop` is called by whatever thread finds out, and what it raises is only logged.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Waiting]], None],
        *,
        write: Callable[[Event], bytes] = _json.dumps,
        max_events: int = 10_000,
        batch_events: int = 500,
        senders: int = 1,
        max_age_seconds: float = 1.0,
        retry_seconds: float = 1.0,
        close_seconds: float = 10.0,
        when_full: Literal["drop", "raise"] = "drop",
        on_drop: OnDrop = log_drop,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        self._send = send
        self._write = write
        self._max_events = max_events
        self._batch_events = batch_events
        self._senders = senders
        self._max_age = max_age_seconds
        self._retry = retry_seconds
        self._close_seconds = close_seconds
        self._when_full = when_full
        self._on_drop = on_drop
        self._on_close = on_close
        self._closed = False
        self._give_up_at: float | None = None
        self.start_over()
        _alive.add(self)

    def start_over(self) -> None:
        """In a forked child: the parent's threads are gone, and its events are the parent's."""
        self._waiting: deque[Waiting] = deque()
        self._flying: dict[int, _Parts] = {}
        """What each thread has taken, and not sent yet."""
        self._dropping = 0
        self._changed = threading.Condition()
        self._flushing = 0
        self._idle = 0
        self._threads: list[threading.Thread] = []

    def __len__(self) -> int:
        """Events that are not with the server yet."""
        with self._changed:
            flying = sum(len(part) for parts in self._flying.values() for part in parts)
            return len(self._waiting) + flying + self._dropping

    def put(self, event: Event) -> bool:
        """Take an event; False when it was dropped at once: there was no room, or it is no JSON.

        Never waits for the network.
        """
        try:
            one = Waiting(event, self._write(event))
        except Exception as error:
            self._drop([event], error)
            return False
        with self._changed:
            if self._closed:
                raise MeterlineError("the event buffer is closed")
            full = len(self) >= self._max_events
            if not full:
                self._waiting.append(one)
                self._start()
                count = len(self._waiting)
                if count == 1 or count % self._batch_events == 0:
                    self._changed.notify_all()
        if full:
            error_ = BufferFullError(f"{self._max_events} events wait to be sent")
            if self._when_full == "raise":
                raise error_
            self._drop([event], error_)
        return not full

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until all that was put is with the server, or dropped; False when time ran out."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: len(self) == 0, timeout_seconds)
            finally:
                self._flushing -= 1

    def close(self, timeout_seconds: float | None = None) -> None:
        """Send what is left, for so many seconds at most; the rest goes to `on_drop`.

        A request that is under way then counts as not sent: nobody knows whether it arrived.
        """
        close_all([self], timeout_seconds)

    def _begin_close(self, timeout_seconds: float | None) -> None:
        """Take no more events, and do not try for longer than that; returns at once."""
        seconds = self._close_seconds if timeout_seconds is None else timeout_seconds
        with self._changed:
            if not self._closed:
                self._closed = True
                self._give_up_at = time.monotonic() + seconds
            self._changed.notify_all()

    def _finish_close(self) -> None:
        """Wait until all is sent, or the time is over, and hand over what is left."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(self._seconds_left())
        with self._changed:
            left = [one.event for parts in self._flying.values() for part in parts for one in part]
            left += [one.event for one in self._waiting]
            for parts in self._flying.values():
                parts.clear()
            self._waiting.clear()
            self._changed.notify_all()
        self._drop(left, ConnectionFailedError("the buffer was closed before they were sent"))
        if self._on_close is not None:
            self._on_close()
        _alive.discard(self)

    def _start(self) -> None:
        """One more thread, if there is more to do than threads that wait for work."""
        if len(self._threads) < self._senders and len(self._waiting) > self._idle:
            thread = threading.Thread(target=self._run, name="meterline-events", daemon=True)
            # Where no thread can be had, the next event tries again, and `close` hands over.
            with suppress(RuntimeError):
                thread.start()
                self._threads.append(thread)

    def _run(self) -> None:
        while (parts := self._next()) is not None:
            while part := self._last(parts):
                try:
                    self._send(part)
                except Exception as error:
                    self._failed(parts, part, error)
                else:
                    self._settle(parts)
            with self._changed:
                if not parts:
                    del self._flying[threading.get_ident()]

    def _next(self) -> _Parts | None:
        """A batch, when it is time for one; None at the end."""
        with self._changed:
            while True:
                self._idle += 1
                self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
                self._idle -= 1
                self._changed.wait_for(self._due, self._max_age)
                if self._closed and (not self._waiting or self._over()):
                    return None
                batch = self._take()
                if batch:
                    parts = self._flying[threading.get_ident()] = [batch]
                    return parts

    def _due(self) -> bool:
        return len(self._waiting) >= self._batch_events or self._closed or self._flushing > 0

    def _take(self) -> list[Waiting]:
        batch: list[Waiting] = []
        size = 0
        while self._waiting and len(batch) < self._batch_events:
            size += len(self._waiting[0].content)
            if batch and size > BATCH_BYTES:
                break
            batch.append(self._waiting.popleft())
        return batch

    def _last(self, parts: _Parts) -> list[Waiting] | None:
        """What to send next of a batch; the end of `close` takes away what is left."""
        with self._changed:
            return parts[-1] if parts and not self._over() else None

    def _settle(self, parts: _Parts, *rest: list[Waiting], dropping: int = 0) -> bool:
        """Done with the last part, but for `rest`; False when `close` has handed it over."""
        with self._changed:
            if not parts:
                return False
            parts[-1:] = [part for part in rest if part]
            self._dropping += dropping
            self._changed.notify_all()
            return True

    def _failed(self, parts: _Parts, part: list[Waiting], error: Exception) -> None:
        if isinstance(error, APIError) and error.status not in RETRIED and error.status < 500:
            bad, rest = _refused(part, error)
        elif isinstance(error, MeterlineError):
            self._pause()
            return
        else:
            bad, rest = part, []
        if self._settle(parts, *rest, dropping=len(bad)):
            self._drop([one.event for one in bad], error)
            with self._changed:
                self._dropping -= len(bad)
                self._changed.notify_all()

    def _pause(self) -> None:
        """Before the next try; `close` makes one more at once."""
        with self._changed:
            closed = self._closed
            seconds = min(self._retry, self._seconds_left()) if closed else self._retry
            self._changed.wait_for(lambda: self._closed != closed, seconds)

    def _drop(self, events: Sequence[Event], error: Exception) -> None:
        try:
            if events:
                self._on_drop(events, error)
        except Exception:
            logger.exception(
                "on_drop failed; %d usage events were not sent: %s", len(events), error
            )

    def _seconds_left(self) -> float:
        return 0.0 if self._give_up_at is None else max(0.0, self._give_up_at - time.monotonic())

    def _over(self) -> bool:
        return self._closed and self._seconds_left() == 0.0


def _refused(part: list[Waiting], error: APIError) -> tuple[list[Waiting], list[list[Waiting]]]:
    """What of it is lost, and what to send instead: parts, the next one last.

    The server names the bad events of a batch. When it names none, or says that the batch is too
    large, halves find them.
    """
    found = error.said("validationErrors") or ()
    named = {one.get("index") for one in found if isinstance(one, Mapping)}
    bad = [one for index, one in enumerate(part) if index in named]
    if bad:
        return bad, [[one for index, one in enumerate(part) if index not in named]]
    if error.status not in (400, 413) or len(part) == 1:
        return part, []
    middle = len(part) // 2
    return [], [part[middle:], part[:middle]]


_alive: "weakref.WeakSet[EventBuffer]" = weakref.WeakSet()


def close_all(buffers: Iterable[EventBuffer], timeout_seconds: float | None = None) -> None:
    """Close buffers at the same time, so that it takes no longer than one of them."""
    closing = list(buffers)
    for buffer in closing:
        buffer._begin_close(timeout_seconds)
    for buffer in closing:
        buffer._finish_close()


def _close_all() -> None:
    close_all(_alive)


def _forget_all() -> None:
    for buffer in list(_alive):
        buffer.start_over()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
