"""What the sink keeps in the relational database: who has a partition, and how far it is.

A worker *takes* a partition and is given an epoch, one greater than that of the worker before.
Whatever it writes from then on says the epoch, and is refused with `FencedError` once another one
has taken the partition: a worker that was cut off, or only slow, can then change nothing here.
"""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.stores.series import live_ids
from meterline.db.tables import UtcDateTime, metadata, upsert
from meterline.eventlog.port import Record

sink_state = sa.Table(
    "sink_state",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("plans", sa.BigInteger, nullable=False),
    sa.Column("series_version", sa.BigInteger, nullable=False),
    sa.Column("leader", sa.BigInteger, nullable=False),
    sa.Column("partitions", sa.Integer),
)
sink_partitions = sa.Table(
    "sink_partitions",
    metadata,
    sa.Column("part", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("through_at", UtcDateTime),
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
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("slow", sa.Boolean, nullable=False),
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

MOVED = 65_535
"""The partition of what was moved here from another store (`aggregator.moving`). No log has it, and
no worker takes it; its position stands for all that was moved."""


class FencedError(Exception):
    """Another worker has taken the partition."""


class PartitionsChangedError(RuntimeError):
    """The log has another number of partitions than at the first start."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A range of one partition that the sink is applying, with all that makes a redo the same.

    `series` are the ids of the series that were live; `skipped` the offsets in the dead-letter
    list; `seq` its number among the plans of all partitions. A `slow` plan is not applied with
    deduplication tokens, which may have been forgotten.
    """

    part: int
    first: int
    last: int
    planned_at: datetime
    series: tuple[int, ...]
    skipped: tuple[int, ...] = field(default=())
    seq: int = 0
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """A partition as its new worker finds it."""

    epoch: int
    position: int
    plan: Plan | None


async def check_partitions(conn: AsyncConnection, count: int) -> None:
    """Remember the number of partitions; it is fixed, because a key's home depends on it."""
    known = (await conn.execute(sa.select(sink_state.c.partitions).with_for_update())).scalar_one()
    if known is None:
        await conn.execute(sa.update(sink_state).values(partitions=count))
    elif known != count:
        raise PartitionsChangedError(
            f"the event log has {count} partitions, and had {known} at the first start: the number"
            " decides where an event is looked for, and cannot change"
        )


async def take_partition(conn: AsyncConnection, part: int, owner: str) -> Taken:
    """Become the worker of a partition; the one before can write no more."""
    statement = upsert(conn, sink_partitions, ["part"], ["owner"])
    first = {"part": part, "position": 0, "epoch": 0, "owner": owner}
    await conn.execute(statement.values(first))
    found = await conn.execute(
        sa.update(sink_partitions)
        .where(sink_partitions.c.part == part)
        .values(epoch=sink_partitions.c.epoch + 1)
        .returning(sink_partitions.c.epoch, sink_partitions.c.position)
    )
    row = found.one()
    return Taken(row.epoch, row.position, await load_plan(conn, part))


async def fence(conn: AsyncConnection, part: int, epoch: int) -> None:
    """Raises `FencedError` unless the partition is still ours, until the transaction ends."""
    mine = sa.select(sink_partitions.c.epoch).where(sink_partitions.c.part == part)
    if (await conn.execute(mine.with_for_update(read=True))).scalar_one_or_none() != epoch:
        raise _fenced(part)


def _fenced(part: int) -> FencedError:
    return FencedError(f"another worker has taken partition {part}")


@dataclass(frozen=True, slots=True)
class Position:
    """How far a partition is applied; `through_at` is when the last event of it was accepted."""

    position: int
    through_at: datetime | None


async def load_places(conn: AsyncConnection) -> dict[int, Position]:
    """How far each partition is that a worker has taken."""
    columns = (sink_partitions.c.part, sink_partitions.c.position, sink_partitions.c.through_at)
    return {
        row.part: Position(row.position, row.through_at)
        for row in await conn.execute(sa.select(*columns))
    }


async def load_positions(conn: AsyncConnection) -> dict[int, int]:
    """The last offset that is fully applied, of each partition that has one."""
    return {part: one.position for part, one in (await load_places(conn)).items() if one.position}


async def planned_through(conn: AsyncConnection) -> dict[int, int]:
    """The last offset of each partition whose plan is fixed, applied or not."""
    plans = await conn.execute(sa.select(sink_plans.c.part, sink_plans.c.last))
    return {**await load_positions(conn), **{row.part: row.last for row in plans}}


async def load_plan(conn: AsyncConnection, part: int) -> Plan | None:
    """The plan that was begun and not committed, if there is one."""
    found = await conn.execute(sa.select(sink_plans).where(sink_plans.c.part == part))
    row = found.one_or_none()
    return None if row is None else _plan(row)


async def load_plans(conn: AsyncConnection) -> list[Plan]:
    """All plans that were begun and not committed."""
    return [_plan(row) for row in await conn.execute(sa.select(sink_plans))]


async def no_plans(conn: AsyncConnection) -> bool:
    """Whether no plan is under way."""
    return not (await conn.execute(sa.select(sa.func.count()).select_from(sink_plans))).scalar_one()


async def only_slow_plans(conn: AsyncConnection) -> bool:
    """Whether no plan is under way but those that wait for all others."""
    query = sa.select(sa.func.count()).select_from(sink_plans).where(~sink_plans.c.slow)
    return not (await conn.execute(query)).scalar_one()


def _plan(row: sa.Row[Any]) -> Plan:
    return Plan(
        row.part,
        row.first,
        row.last,
        row.planned_at,
        tuple(row.series),
        tuple(row.skipped),
        row.seq,
        row.slow,
    )


async def _count_plan(conn: AsyncConnection) -> int:
    """Number a new plan."""
    found = await conn.execute(
        sa.update(sink_state).values(plans=sink_state.c.plans + 1).returning(sink_state.c.plans)
    )
    return int(found.scalar_one())


async def plans_made(conn: AsyncConnection) -> int:
    """How many plans there have been, of all partitions."""
    return int((await conn.execute(sa.select(sink_state.c.plans))).scalar_one())


async def save_plan(conn: AsyncConnection, plan: Plan, epoch: int) -> Plan:
    """Record a plan before it touches the event store, with its number and the live series.

    To be called in a transaction that passed the gate.
    """
    await fence(conn, plan.part, epoch)
    plan = replace(plan, seq=await _count_plan(conn), series=tuple(await live_ids(conn)))
    columns = ["first", "last", "planned_at", "series", "skipped", "seq", "slow"]
    await conn.execute(
        upsert(conn, sink_plans, ["part"], columns).values(
            part=plan.part,
            first=plan.first,
            last=plan.last,
            planned_at=plan.planned_at,
            series=list(plan.series),
            skipped=list(plan.skipped),
            seq=plan.seq,
            slow=plan.slow,
        )
    )
    return plan


async def change_plan(conn: AsyncConnection, plan: Plan, epoch: int) -> None:
    """Record what a plan under way skips, and whether it is slow."""
    await fence(conn, plan.part, epoch)
    await conn.execute(
        sa.update(sink_plans)
        .where(sink_plans.c.part == plan.part)
        .values(skipped=list(plan.skipped), slow=plan.slow)
    )


# Made once: all else that writes waits for the transaction that they are part of.
_MOVE = (
    sa.update(sink_partitions)
    .where(
        sink_partitions.c.part == sa.bindparam("of"), sink_partitions.c.epoch == sa.bindparam("by")
    )
    .values(
        position=sa.bindparam("to"),
        through_at=sa.func.coalesce(
            sa.bindparam("at", type_=UtcDateTime), sink_partitions.c.through_at
        ),
    )
)
_DONE = sa.delete(sink_plans).where(sink_plans.c.part == sa.bindparam("of"))


async def commit_plan(
    conn: AsyncConnection, plan: Plan, epoch: int, through_at: datetime | None
) -> None:
    """The plan is applied: move the position past it.

    Before anything else in its transaction: whoever has locked the row of a partition sees
    nothing of the plan, and whoever locks it later sees all of it.
    """
    to = {"of": plan.part, "by": epoch, "to": plan.last, "at": through_at}
    if (await conn.execute(_MOVE, to)).rowcount != 1:
        raise _fenced(plan.part)
    await conn.execute(_DONE, {"of": plan.part})


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
