"""Channels in the relational database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.notifications.model import Channel, DeliveryState, OldSecret
from entitlements.notifications.stores.paging import Page, Sorting, page_of
from entitlements.notifications.stores.tables import channels, deliveries
from meterline.kernel.instants import format_instant, parse_instant


async def add(conn: AsyncConnection, channel: Channel) -> None:
    """Keep a new channel."""
    await conn.execute(insert(channels).values(_row(channel)))


async def change(conn: AsyncConnection, channel: Channel) -> None:
    """Keep a channel as it is now; what the receiver did before is forgotten."""
    row = {**_row(channel), "failing_since": None, "paused_until": None}
    await conn.execute(update(channels).where(channels.c.id == channel.id).values(row))


async def lock(conn: AsyncConnection, channel_id: str) -> None:
    """Nobody else changes the channel before this transaction has ended.

    To come before changes of its deliveries: all who change both lock the channel first.
    """
    await conn.execute(select(channels.c.id).where(channels.c.id == channel_id).with_for_update())


async def get(
    conn: AsyncConnection, namespace: str, channel_id: str, *, lock: bool = False
) -> Channel | None:
    """The channel with that id, deleted or not; with `lock` as it stays until the end."""
    query = select(channels).where(
        channels.c.namespace == namespace, channels.c.id == channel_id.upper()
    )
    if lock:
        query = query.with_for_update()
    row = (await conn.execute(query)).one_or_none()
    return _channel(row) if row else None


async def by_ids(
    conn: AsyncConnection, namespace: str, ids: Sequence[str], *, lock: bool = False
) -> dict[str, Channel]:
    """The channels with these ids that are not deleted; with `lock` they stay until the end."""
    query = select(channels).where(
        channels.c.namespace == namespace,
        channels.c.id.in_([one.upper() for one in ids]),
        channels.c.deleted_at.is_(None),
    )
    if lock:
        query = query.order_by(channels.c.id).with_for_update(read=True)
    return {row.id: _channel(row) for row in await conn.execute(query)}


async def count(conn: AsyncConnection, namespace: str) -> int:
    """How many channels there are."""
    query = select(func.count()).where(
        channels.c.namespace == namespace, channels.c.deleted_at.is_(None)
    )
    return int((await conn.execute(query)).scalar_one())


async def listed(
    conn: AsyncConnection,
    namespace: str,
    sorting: Sorting,
    *,
    deleted: bool = False,
    disabled: bool = False,
) -> Page[Channel]:
    """A page of channels."""
    query = select(channels).where(channels.c.namespace == namespace)
    if not deleted:
        query = query.where(channels.c.deleted_at.is_(None))
    if not disabled:
        query = query.where(channels.c.disabled.is_(False))
    total, rows = await page_of(conn, query, channels, sorting)
    return Page([_channel(row) for row in rows], total)


async def remove(conn: AsyncConnection, channel_id: str, now: datetime) -> None:
    """Delete a channel; what is on its way to it is given up."""
    await conn.execute(
        update(channels)
        .where(channels.c.id == channel_id)
        .values(deleted_at=now, updated_at=now, secret="", old_secrets=[], headers={})
    )
    await give_up(conn, channel_id, "the channel was deleted", now)


async def give_up(conn: AsyncConnection, channel_id: str, reason: str, now: datetime) -> None:
    """Fail everything that is still on its way to a channel."""
    await conn.execute(
        update(deliveries)
        .where(deliveries.c.channel_id == channel_id, deliveries.c.next_attempt_at.is_not(None))
        .values(
            state=DeliveryState.FAILED.value,
            reason=reason,
            claim=None,
            next_attempt_at=None,
            updated_at=now,
        )
    )


async def succeeded(conn: AsyncConnection, channel_id: str) -> None:
    """The receiver took a message: whatever was wrong is over."""
    await conn.execute(
        update(channels)
        .where(channels.c.id == channel_id, channels.c.failing_since.is_not(None))
        .values(failing_since=None, paused_until=None)
    )


async def failed(
    conn: AsyncConnection, channel_id: str, now: datetime, pause_until: datetime | None
) -> datetime:
    """The receiver failed; answers since when it has been failing without a success between."""
    since = func.coalesce(channels.c.failing_since, now)
    changes: dict[str, Any] = {"failing_since": since}
    if pause_until is not None:
        changes["paused_until"] = pause_until
    result = await conn.execute(
        update(channels)
        .where(channels.c.id == channel_id)
        .values(changes)
        .returning(channels.c.failing_since)
    )
    found: datetime = result.scalar_one()
    return found


async def disable(conn: AsyncConnection, channel_id: str, reason: str, now: datetime) -> None:
    """Disable a channel because of what its receiver does."""
    await conn.execute(
        update(channels)
        .where(channels.c.id == channel_id)
        .values(disabled=True, disabled_reason=reason, updated_at=now)
    )
    await give_up(conn, channel_id, f"the channel was disabled: {reason}", now)


def _row(channel: Channel) -> dict[str, Any]:
    return {
        "id": channel.id,
        "namespace": channel.namespace,
        "name": channel.name,
        "url": channel.url,
        "headers": dict(channel.headers),
        "secret": channel.secret,
        "old_secrets": [
            {"secret": one.secret, "until": format_instant(one.until)}
            for one in channel.old_secrets
        ],
        "disabled": channel.disabled,
        "disabled_reason": channel.disabled_reason,
        "metadata": dict(channel.metadata),
        "created_at": channel.created_at,
        "updated_at": channel.updated_at,
        "deleted_at": channel.deleted_at,
    }


def _channel(row: Row[Any]) -> Channel:
    return Channel(
        id=row.id,
        namespace=row.namespace,
        name=row.name,
        url=row.url,
        headers=row.headers,
        secret=row.secret,
        old_secrets=[
            OldSecret(one["secret"], parse_instant(one["until"])) for one in row.old_secrets
        ],
        disabled=row.disabled,
        disabled_reason=row.disabled_reason,
        metadata=row.metadata,
        created_at=row.created_at,
        updated_at=row.updated_at,
        deleted_at=row.deleted_at,
    )
