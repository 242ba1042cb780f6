"""From confirmed holds to the event log: in groups, again and again until they are durable."""

import asyncio
import copy
import time
from collections.abc import Mapping, Sequence

import structlog

from entitlements.events import EventWriter, UsageEvent
from entitlements.holds.outbox import read_event
from meterline.kernel.errors import MeterlineError, UnavailableError, ValidationError
from meterline.kernel.grouping import Grouping

log = structlog.get_logger(__name__)

_MAX_WAITING = 100_000
_MAX_GROUP = 500
_MAX_REMEMBERED = 200_000
_PACE_SECONDS = 0.05
"""Between two writes. Nobody waits for one, and each makes the disk write through, which those who
wait for their holds then wait for, too: a few larger writes leave more of it to them."""

Key = tuple[str, str]
"""Namespace and id of a hold."""
Batch = Sequence[tuple[str, UsageEvent]]
"""Events that were confirmed together, each with its namespace."""


class Sender:
    """Appends events. What fails stays in the outbox, from where `resend` takes it."""

    def __init__(self, events: EventWriter) -> None:
        self._events = events
        # Of the time since the last `age`, and of the one between the two last.
        self._sent: set[Key] = set()
        self._sent_before: set[Key] = set()
        self._wrote_at = -_PACE_SECONDS
        self._under_way: set[asyncio.Future[None]] = set()
        self._grouping: Grouping[Batch, None] = Grouping(
            self._write,
            name="events of holds",
            max_items=_MAX_WAITING,
            max_cost=_MAX_WAITING,
            max_group_items=_MAX_GROUP,
            max_group_cost=_MAX_GROUP,
        )

    def send(self, events: Batch) -> None:
        """Append events soon, without waiting. They are in the outbox, so failing is allowed."""
        try:
            future = self._grouping.submit(events, len(events))
        except UnavailableError as error:
            log.warning("events of holds will be written later", error=error.detail)
            return
        self._under_way.add(future)
        future.add_done_callback(self._done)

    async def resend(self, waiting: Sequence[tuple[str, str, str]]) -> int:
        """Append outbox rows (namespace, hold, event) that are not known to be durable."""
        unsure = [one for one in waiting if not self.is_durable((one[0], one[1]))]
        if unsure:
            batch = [(namespace, read_event(text)) for namespace, _, text in unsure]
            await self._grouping.submit(batch, len(batch))
        return len(unsure)

    def is_durable(self, key: Key) -> bool:
        """Whether a hold's event is known to be in the log. What is long ago is forgotten."""
        return key in self._sent or key in self._sent_before

    def age(self) -> None:
        """Forget what was sent before the last call; what comes now is remembered until the next
        but one."""
        self._sent, self._sent_before = set(), self._sent

    async def flush(self) -> None:
        """Return when nothing waits any more."""
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def close(self) -> None:
        """Append what waits."""
        await self._grouping.close()

    async def _write(self, group: Sequence[Batch]) -> Sequence[None | Exception]:
        # A single one is written at once.
        await asyncio.sleep(max(0.0, self._wrote_at + _PACE_SECONDS - time.monotonic()))
        self._wrote_at = time.monotonic()
        by_namespace: dict[str, list[UsageEvent]] = {}
        for batch in group:
            for namespace, event in batch:
                by_namespace.setdefault(namespace, []).append(event)
        errors: dict[Key, Exception] = {}
        for namespace, events in by_namespace.items():
            error = await self._append(namespace, events)
            for event in events if error is not None else ():
                if isinstance(error, ValidationError) and len(events) > 1:
                    # One of them will never do; the others must not wait for it.
                    error_of = await self._append(namespace, [event])
                else:
                    error_of = error
                if error_of is not None:
                    errors[namespace, event.id] = error_of
        if len(self._sent) > _MAX_REMEMBERED:
            # Too many to remember: those that nobody notes are written again, and count once.
            self._sent.clear()
        return [_first(errors, batch) for batch in group]

    def _done(self, future: asyncio.Future[None]) -> None:
        self._under_way.discard(future)
        if not future.cancelled():
            # It was logged; asyncio would complain of an error that nobody has seen.
            future.exception()

    async def _append(self, namespace: str, events: Sequence[UsageEvent]) -> Exception | None:
        """Make events durable; the error when they are not."""
        try:
            await self._events.write(namespace, events)
        except MeterlineError as error:
            log.warning("events of holds are not written yet", error=error.detail)
            return error
        except Exception as error:
            log.exception("events of holds are not written yet")
            return error
        self._sent.update((namespace, one.id) for one in events)
        return None


def _first(errors: Mapping[Key, Exception], batch: Batch) -> Exception | None:
    """An error of one of the events, if there is one."""
    found = (errors.get((namespace, event.id)) for namespace, event in batch) if errors else ()
    return next((copy.copy(error) for error in found if error is not None), None)
