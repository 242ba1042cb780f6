"""Series, who uses them, who leads, and purges: in the relational database.

The set of series is the database's: every process keeps a copy, and `series_version` says when it
is old. The process that *leads* back-fills and deletes; it has a number, and what it writes is
refused once another one leads.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.series import Series, SeriesKey, State
from meterline.db.tables import UtcDateTime, metadata, upsert

series_table = sa.Table(
    "series",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("namespace", sa.String(64), nullable=False),
    sa.Column("event_type", sa.Text, nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("value_path", sa.Text),
    sa.Column("group_paths", sa.JSON, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("live_from", sa.JSON, nullable=False),
    sa.Column("done_through", sa.JSON, nullable=False),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("in_progress", sa.Boolean, nullable=False),
    sa.Column("dropped_at", UtcDateTime),
    sqlite_autoincrement=True,
)
series_users = sa.Table(
    "series_users",
    metadata,
    sa.Column("series", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("meter_id", sa.Text, primary_key=True),
    sa.Column("since", UtcDateTime, nullable=False),
)
purges = sa.Table(
    "purges",
    metadata,
    sa.Column("namespace", sa.String(64), primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("requested_at", UtcDateTime, nullable=False),
)


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """A series with what its back-fill needs: offsets a step, and whether a step was cut short."""

    series: Series
    step: int
    in_progress: bool


_LIVE = series_table.c.dropped_at.is_(None)
# A table of one row that the sink's own module defines; named here without importing that.
_STATE = sa.table(
    "sink_state",
    sa.column("series_version", sa.BigInteger),
    sa.column("leader", sa.BigInteger),
)


class DeposedError(Exception):
    """Another process leads now."""


async def version(conn: AsyncConnection) -> int:
    """Grows with every change of the series."""
    return int((await conn.execute(sa.select(_STATE.c.series_version))).scalar_one())


async def _changed(conn: AsyncConnection) -> None:
    """To be called before a row of a series is changed: the leader locks in this order as well."""
    await conn.execute(sa.update(_STATE).values(series_version=_STATE.c.series_version + 1))


async def take_lead(conn: AsyncConnection) -> int:
    """Become the leader; answers its number. The leader before can write no more."""
    change = sa.update(_STATE).values(leader=_STATE.c.leader + 1).returning(_STATE.c.leader)
    return int((await conn.execute(change)).scalar_one())


async def check_lead(conn: AsyncConnection, leader: int) -> None:
    """Raises `DeposedError` unless that leader still leads, until the transaction ends."""
    query = sa.select(_STATE.c.leader).with_for_update()
    if (await conn.execute(query)).scalar_one() != leader:
        raise DeposedError("another process leads now")


async def load_series(
    conn: AsyncConnection, ids: Iterable[int] | None = None
) -> list[StoredSeries]:
    """The live series of all namespaces; or those with these ids, dropped or not."""
    wanted = _LIVE if ids is None else series_table.c.id.in_(list(ids))
    rows = await conn.execute(sa.select(series_table).where(wanted).order_by(series_table.c.id))
    return [_stored_series(row) for row in rows]


async def live_ids(conn: AsyncConnection) -> Sequence[int]:
    """The ids of the live series, ascending."""
    query = sa.select(series_table.c.id).where(_LIVE).order_by(series_table.c.id)
    return (await conn.execute(query)).scalars().all()


async def series_is_live(conn: AsyncConnection, series: int) -> bool:
    """Whether a series is live, and stays so until the transaction ends."""
    query = sa.select(series_table.c.id).where(_LIVE, series_table.c.id == series)
    return (await conn.execute(query.with_for_update(read=True))).scalar_one_or_none() is not None


async def find_series(conn: AsyncConnection, key: SeriesKey) -> StoredSeries | None:
    """The live series of a key, if there is one."""
    query = sa.select(series_table).where(
        _LIVE,
        series_table.c.namespace == key.namespace,
        series_table.c.event_type == key.event_type,
        series_table.c.kind == key.kind,
    )
    found = [_stored_series(row) for row in await conn.execute(query)]
    return next((one for one in found if one.series.key == key), None)


async def load_users(conn: AsyncConnection) -> set[tuple[int, str]]:
    """Which meters use which series, as (series, id of the meter)."""
    columns = (series_users.c.series, series_users.c.meter_id)
    return {(row.series, row.meter_id) for row in await conn.execute(sa.select(*columns))}


async def old_users(conn: AsyncConnection, before: datetime) -> set[tuple[int, str]]:
    """As `load_users`, of those that have been users since before an instant."""
    columns = (series_users.c.series, series_users.c.meter_id)
    query = sa.select(*columns).where(series_users.c.since < before)
    return {(row.series, row.meter_id) for row in await conn.execute(query)}


async def add_user(conn: AsyncConnection, series: int, meter_id: str, now: datetime) -> None:
    """A meter uses a series."""
    await conn.execute(
        upsert(conn, series_users, ["series", "meter_id"], ["since"]).values(
            series=series, meter_id=meter_id, since=now
        )
    )
    await _changed(conn)


async def remove_user(conn: AsyncConnection, series: int, meter_id: str, now: datetime) -> None:
    """A meter no longer uses a series, which is dropped when nobody else does."""
    mine = (series_users.c.series == series, series_users.c.meter_id == meter_id)
    await conn.execute(sa.delete(series_users).where(*mine))
    await drop_unused(conn, now, series)


async def drop_unused(conn: AsyncConnection, now: datetime, series: int | None = None) -> None:
    """Mark series that no meter uses: new plans leave them out. All of them, or just that one."""
    await _changed(conn)
    unused = series_table.c.id.not_in(sa.select(series_users.c.series))
    which = [] if series is None else [series_table.c.id == series]
    await conn.execute(sa.update(series_table).where(_LIVE, unused, *which).values(dropped_at=now))


async def dropped_ids(conn: AsyncConnection, before: datetime) -> set[int]:
    """Series that were dropped at or before an instant and are not deleted yet."""
    query = sa.select(series_table.c.id).where(series_table.c.dropped_at <= before)
    return set((await conn.execute(query)).scalars())


def _stored_series(row: sa.Row[Any]) -> StoredSeries:
    key = SeriesKey(row.namespace, row.event_type, row.kind, row.value_path, tuple(row.group_paths))
    series = Series(row.id, key, row.state, _offsets(row.live_from), _offsets(row.done_through))
    return StoredSeries(series, row.step, row.in_progress)


async def create_series(
    conn: AsyncConnection, key: SeriesKey, state: State, live_from: Mapping[int, int], step: int
) -> Series:
    """Add a series; ids are never used again."""
    result = await conn.execute(
        sa.insert(series_table)
        .values(
            namespace=key.namespace,
            event_type=key.event_type,
            kind=key.kind,
            value_path=key.value_path,
            group_paths=list(key.group_paths),
            state=state,
            live_from=_texts(live_from),
            done_through={},
            step=step,
            in_progress=False,
        )
        .returning(series_table.c.id)
    )
    await _changed(conn)
    return Series(result.scalar_one(), key, state, dict(live_from), {})


async def need_no_preparation(conn: AsyncConnection, series: int) -> None:
    """No stored event of the series has to be read exactly: it can be queried from now on."""
    await _changed(conn)
    await conn.execute(
        sa.update(series_table)
        .where(series_table.c.id == series)
        .where(series_table.c.state == "preparing", ~series_table.c.in_progress)
        .values(state="backfilling")
    )


async def save_series(
    conn: AsyncConnection, series: Series, leader: int, *, in_progress: bool
) -> None:
    """Record how far a series' back-fill is. `DeposedError` when another process leads."""
    await check_lead(conn, leader)
    await conn.execute(
        sa.update(series_table)
        .where(series_table.c.id == series.id)
        .values(
            state=series.state,
            live_from=_texts(series.live_from),
            done_through=_texts(series.done_through),
            in_progress=in_progress,
        )
    )
    await _changed(conn)


async def delete_series(conn: AsyncConnection, ids: Iterable[int]) -> None:
    """Forget series; their points are deleted from the event store before."""
    await conn.execute(sa.delete(series_table).where(series_table.c.id.in_(list(ids))))


async def request_purge(conn: AsyncConnection, namespace: str, subject: str, now: datetime) -> None:
    """Remember that a subject's usage is to be erased, so that a crash does not forget it."""
    await conn.execute(
        upsert(conn, purges, ["namespace", "subject"], ["requested_at"]).values(
            namespace=namespace, subject=subject, requested_at=now
        )
    )


async def finish_purge(conn: AsyncConnection, namespace: str, subject: str) -> None:
    """The subject's usage is erased."""
    await conn.execute(
        sa.delete(purges).where(purges.c.namespace == namespace, purges.c.subject == subject)
    )


async def load_purges(conn: AsyncConnection) -> Sequence[tuple[str, str]]:
    """Purges that were asked for and not finished, as (namespace, subject)."""
    rows = await conn.execute(sa.select(purges.c.namespace, purges.c.subject))
    return [(row.namespace, row.subject) for row in rows]


def _texts(offsets: Mapping[int, int]) -> dict[str, int]:
    return {str(part): offset for part, offset in offsets.items()}


def _offsets(texts: Mapping[str, int]) -> dict[int, int]:
    return {int(part): offset for part, offset in texts.items()}
