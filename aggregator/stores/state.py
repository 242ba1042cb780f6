"""What the sink and the series keep in the relational database."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.series import Series, SeriesKey, State
from meterline.db.tables import UtcDateTime, metadata, upsert
from meterline.eventlog.port import Record

sink_partitions = sa.Table(
    "sink_partitions",
    metadata,
    sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, nullable=False),
)
sink_plans = sa.Table(
    "sink_plans",
    metadata,
    sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("first", sa.BigInteger, nullable=False),
    sa.Column("last", sa.BigInteger, nullable=False),
    sa.Column("planned_at", UtcDateTime, nullable=False),
    sa.Column("series", sa.JSON, nullable=False),
    sa.Column("skipped", sa.JSON, nullable=False),
)
dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("off", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("namespace", sa.String(64), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("events", sa.LargeBinary, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)
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
    sqlite_autoincrement=True,
)
purges = sa.Table(
    "purges",
    metadata,
    sa.Column("namespace", sa.String(64), primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("requested_at", UtcDateTime, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A range of one partition that the sink is applying, with all that makes a redo the same.

    `series` are the ids of the series that were live; `skipped` the offsets in the dead-letter
    list.
    """

    part: int
    first: int
    last: int
    planned_at: datetime
    series: tuple[int, ...]
    skipped: tuple[int, ...] = field(default=())


async def load_position(conn: AsyncConnection, part: int) -> int:
    """The last offset that is fully applied, 0 at the start."""
    row = await conn.execute(
        sa.select(sink_partitions.c.position).where(sink_partitions.c.part == part)
    )
    return row.scalar_one_or_none() or 0


async def load_positions(conn: AsyncConnection) -> dict[int, int]:
    """The last offset that is fully applied, of each partition that has one."""
    found = await conn.execute(sa.select(sink_partitions.c.part, sink_partitions.c.position))
    return {row.part: row.position for row in found}


async def load_plan(conn: AsyncConnection, part: int) -> Plan | None:
    """The plan that was begun and not committed, if there is one."""
    found = (
        await conn.execute(sa.select(sink_plans).where(sink_plans.c.part == part))
    ).one_or_none()
    if found is None:
        return None
    return Plan(
        part, found.first, found.last, found.planned_at, tuple(found.series), tuple(found.skipped)
    )


async def save_plan(conn: AsyncConnection, plan: Plan) -> None:
    """Record a plan before it touches the event store."""
    statement = upsert(
        conn, sink_plans, ["part"], ["first", "last", "planned_at", "series", "skipped"]
    )
    await conn.execute(
        statement.values(
            part=plan.part,
            first=plan.first,
            last=plan.last,
            planned_at=plan.planned_at,
            series=list(plan.series),
            skipped=list(plan.skipped),
        )
    )


async def commit_plan(conn: AsyncConnection, plan: Plan) -> None:
    """The plan is applied: move the position past it."""
    await conn.execute(
        upsert(conn, sink_partitions, ["part"], ["position"]).values(
            part=plan.part, position=plan.last
        )
    )
    await conn.execute(sa.delete(sink_plans).where(sink_plans.c.part == plan.part))


async def add_dead_letter(
    conn: AsyncConnection, record: Record, reason: str, now: datetime
) -> None:
    """Set a record aside that the event store cannot take; once, however often it is tried."""
    await conn.execute(
        upsert(conn, dead_letters, ["part", "off"], []).values(
            part=record.partition,
            off=record.offset,
            namespace=record.namespace,
            reason=reason,
            events=record.events,
            created_at=now,
        )
    )


@dataclass(frozen=True, slots=True)
class StoredSeries:
    """A series with what its back-fill needs: offsets a step, and whether a step was cut short."""

    series: Series
    step: int
    in_progress: bool


async def load_series(conn: AsyncConnection) -> list[StoredSeries]:
    """Every series, of all namespaces."""
    rows = (await conn.execute(sa.select(series_table).order_by(series_table.c.id))).all()
    return [_stored_series(row) for row in rows]


def _stored_series(row: sa.Row[tuple[object, ...]]) -> StoredSeries:
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
    return Series(result.scalar_one(), key, state, dict(live_from), {})


async def save_series(conn: AsyncConnection, series: Series, *, in_progress: bool) -> None:
    """Record how far a series' back-fill is."""
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
