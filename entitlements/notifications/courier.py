"""Sends what is due, and writes down what came of it."""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from entitlements.notifications.model import Attempt, Channel, DeliveryState
from entitlements.notifications.options import NotificationOptions, Step, no_step
from entitlements.notifications.schedule import judge
from entitlements.notifications.sender import Sender
from entitlements.notifications.signing import signed_headers
from entitlements.notifications.stores import channels, outbox
from entitlements.notifications.stores.outbox import Due
from meterline.db.engine import Database
from meterline.kernel.clock import Clock
from meterline.version import __version__

log = structlog.get_logger(__name__)

STEPS = ("claimed", "sent", "written", "recorded")

_USER_AGENT = f"Meterline/{__version__} (webhooks)"


class Courier:
    """Delivers, many at a time but few to one receiver. Several processes may do so side by side.

    A message can arrive more than once, after a crash or a lost answer, always with the same
    `webhook-id`.
    """

    def __init__(
        self,
        database: Database,
        sender: Sender,
        clock: Clock,
        options: NotificationOptions,
        on_step: Step = no_step,
        on_free: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._sender = sender
        self._clock = clock
        self._options = options
        self._on_step = on_step
        self._on_free = on_free
        self._flying: dict[asyncio.Task[None], str] = {}

    async def run_once(self) -> bool:
        """Send off what is due and has room, without waiting; answers whether there was any."""
        free = self._options.concurrency - len(self._flying)
        if free <= 0:
            return False
        now = self._clock()
        most = self._options.endpoint_concurrency
        busy = list(self._flying.values())
        full = {channel_id for channel_id in busy if busy.count(channel_id) >= most}
        async with self._database.read() as conn:
            waiting = await outbox.due_channels(conn, now, full, free)
        if not waiting:
            return False
        due: list[Due] = []
        async with self._database.transaction() as conn:
            for channel_id in waiting:
                room = min(most - busy.count(channel_id), free - len(due))
                if room > 0:
                    due += await outbox.claim(conn, channel_id, now, room, self._options.lease)
        await self._on_step("claimed")
        for one in due:
            task = asyncio.create_task(self._deliver(one))
            self._flying[task] = one.channel.id
            task.add_done_callback(self._landed)
        return bool(due)

    async def landed(self) -> None:
        """Wait until nothing is on its way."""
        while self._flying:
            await asyncio.wait(list(self._flying))

    async def stop(self, patience_seconds: float) -> None:
        """Wait a little for what is on its way; the rest is sent again by the next process."""
        if self._flying:
            await asyncio.wait(list(self._flying), timeout=patience_seconds)
        for task in list(self._flying):
            task.cancel()
        await self.landed()

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._flying.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The lease lapses, and it is sent again.
            log.error("an attempt could not be recorded", error=repr(error)[:500])
        self._on_free()

    async def _deliver(self, due: Due) -> None:
        started = self._clock()
        body = due.payload.encode()
        headers = message_headers(due.channel, due.event_id, started, body)
        answer = await self._sender.send(due.channel.url, headers, body)
        await self._on_step("sent")
        now = self._clock()
        verdict = judge(answer, due.tried, due.id, now)
        won = verdict.state is DeliveryState.SUCCESS
        state = DeliveryState.SUCCESS if won else DeliveryState.FAILED
        attempt = Attempt(
            started, state, answer.status, answer.body, answer.duration_ms, due.channel.url
        )
        async with self._database.transaction() as conn:
            await channels.lock(conn, due.channel.id)
            if await outbox.record(conn, due, attempt, verdict, now):
                if won:
                    await channels.succeeded(conn, due.channel.id)
                else:
                    since = await channels.failed(conn, due.channel.id, now, verdict.pause_until)
                    reason = self._why_disable(since, now, gone=verdict.gone)
                    if reason:
                        await channels.disable(conn, due.channel.id, reason, now)
                        log.warning(
                            "a notification channel was disabled",
                            channel=due.channel.id,
                            namespace=due.channel.namespace,
                            reason=reason,
                        )
            await self._on_step("written")
        await self._on_step("recorded")

    def _why_disable(self, since: datetime, now: datetime, *, gone: bool) -> str:
        if gone:
            return "its receiver answered 410 (gone)"
        if now - since >= timedelta(seconds=self._options.disable_after_seconds):
            return f"every attempt failed since {since:%Y-%m-%d %H:%M} UTC"
        return ""


def message_headers(
    channel: Channel, message_id: str, now: datetime, body: bytes
) -> dict[str, str]:
    """All headers of a message. A channel's own come first: they cannot replace the others."""
    secrets = [channel.secret, *(old.secret for old in channel.old_secrets if now < old.until)]
    fixed = {
        "content-type": "application/json",
        "user-agent": _USER_AGENT,
        "content-length": str(len(body)),
        **signed_headers(message_id, now, body, secrets),
    }
    own = {name: value for name, value in channel.headers.items() if name.lower() not in fixed}
    return {**own, **fixed}
