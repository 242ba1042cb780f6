"""Notifications of a server: what asks for checks, the service, and the worker while it runs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.following import Rejections
from entitlements.live import LiveValues
from entitlements.notifications.api.routes import routers
from entitlements.notifications.options import NotificationLimits, NotificationOptions
from entitlements.notifications.reader import EntitlementReader
from entitlements.notifications.sender import HttpSender
from entitlements.notifications.service import NotificationService
from entitlements.notifications.stores.checks import request_checks
from entitlements.notifications.stores.rejected import report_rejected, watching_namespaces
from entitlements.notifications.worker import NotificationWorker
from entitlements.services.meters import MeterUse, entitlements_over
from entitlements.services.values import ValueService
from entitlements.stores import entitlements as entitlement_store
from entitlements.stores import following
from meterline.db.engine import Database
from meterline.kernel.clock import Clock
from meterline.kernel.meters import Meter
from meterline.kernel.usage import Usage
from meterline.server.sections import NotificationSettings
from meterline.server.usage import LiveFollower

_OURS = {"enabled", "allow_private_targets"}
"""Settings that are no options of the worker."""


class NotifyingFollower(LiveFollower):
    """Moves live rows on, and has the entitlements looked at whose usage that is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def apply(self, conn: AsyncConnection, usages: Sequence[Usage]) -> None:
        """See `Follower.apply`."""
        ids = await following.apply(conn, usages)
        later = {usage.due for usage in usages if usage.due is not None}
        await request_checks(conn, ids, self._clock(), later)

    async def rejected(self, conn: AsyncConnection, read: Rejections) -> None:
        """See `Follower.rejected`."""
        watched = await watching_namespaces(conn)
        if not watched:
            return
        found: dict[str, dict[str, int]] = {}
        for namespace, reason, count in await read():
            if namespace in watched:
                reasons = found.setdefault(namespace, {})
                reasons[reason] = reasons.get(reason, 0) + count
        for namespace, reasons in found.items():
            await report_rejected(conn, namespace, reasons, self._clock())

    async def erase(self, conn: AsyncConnection, namespace: str, subject: str) -> None:
        """See `Follower.erase`."""
        await super().erase(conn, namespace, subject)
        found = await entitlement_store.of_subject(conn, namespace, subject)
        await request_checks(conn, [one.id for one in found], self._clock())


class NotifyingMeterUse(MeterUse):
    """Has the entitlements looked at whose meter changes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(database)
        self._clock = clock

    async def on_change(self, conn: AsyncConnection, meter: Meter) -> None:
        """See `MeterUse.on_change`."""
        await super().on_change(conn, meter)
        await request_checks(conn, await entitlements_over(conn, meter), self._clock())


@asynccontextmanager
async def notifications(
    settings: NotificationSettings,
    database: Database,
    values: ValueService,
    live_values: LiveValues,
    clock: Clock,
) -> AsyncIterator[list[APIRouter]]:
    """The endpoints; the worker runs until the block ends, unless it is switched off.

    `values` calculates without live values.
    """
    reader = EntitlementReader(database, values, live_values, clock)
    sender = HttpSender(
        timeout_seconds=settings.timeout_seconds, allow_private=settings.allow_private_targets
    )
    options = NotificationOptions(**settings.model_dump(exclude=_OURS))
    worker = NotificationWorker(database, reader, sender, clock, options)
    service = NotificationService(
        database,
        reader,
        clock,
        NotificationLimits(),
        allow_private=settings.allow_private_targets,
        wake=worker.wake,
    )
    if settings.enabled:
        worker.start()
    try:
        yield routers(service)
    finally:
        await worker.stop()
        await sender.close()
