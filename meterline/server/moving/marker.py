"""What a database says of a move: on the one side who it is, on the other what came in, how far."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from meterline.db.engine import Database
from meterline.db.tables import UtcDateTime, metadata, upsert
from meterline.kernel.errors import ConflictError
from meterline.kernel.ids import new_ulid

Stage = Literal["events", "keys", "tables", "meters", "done"]
"""What is to be done next."""

moves = sa.Table(
    "moves",
    metadata,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("side", sa.String(8), nullable=False),
    sa.Column("stage", sa.String(16), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("source", sa.JSON, nullable=False),
    sa.Column("progress", sa.JSON, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("changed_at", UtcDateTime, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Move:
    """A folder that is on its way into this deployment, or has arrived."""

    id: str
    """Of the folder."""
    stage: Stage
    generation: int
    """Grows whenever all is begun anew."""
    source: Mapping[str, int]
    """What the folder held when it was begun (`source.Extent`)."""
    progress: Mapping[str, Any] = field(default_factory=dict)
    """How far the stage is."""

    def reached(self, stage: Stage, **progress: Any) -> "Move":
        """The same, further on."""
        return replace(self, stage=stage, progress=progress)


async def identity(database: Database, now: datetime) -> str:
    """Who a folder is: made at the first use, and kept in its database."""
    query = sa.select(moves.c.id).where(moves.c.side == "from")
    async with database.transaction() as conn:
        found = (await conn.execute(query)).scalar_one_or_none()
        if found is None:
            found = new_ulid(now)
            values = _values(Move(found, "done", 0, {}), "from", now)
            await conn.execute(sa.insert(moves).values(**values))
    return str(found)


async def load_move(conn: AsyncConnection) -> Move | None:
    """What came into this database, if anything did."""
    row = (await conn.execute(sa.select(moves).where(moves.c.side == "to"))).one_or_none()
    if row is None:
        return None
    return Move(row.id, row.stage, row.generation, row.source, row.progress)


async def save_move(conn: AsyncConnection, move: Move, now: datetime) -> None:
    """Write down how far a move is."""
    changing = ["stage", "generation", "source", "progress", "changed_at"]
    await conn.execute(upsert(conn, moves, ["id"], changing).values(**_values(move, "to", now)))


def _values(move: Move, side: str, now: datetime) -> dict[str, Any]:
    return {
        "id": move.id,
        "side": side,
        "stage": move.stage,
        "generation": move.generation,
        "source": dict(move.source),
        "progress": dict(move.progress),
        "started_at": now,
        "changed_at": now,
    }


async def refuse_half_moved(database: Database) -> None:
    """`ConflictError` while a move into this database is not at its end.

    A sink would count events again whose keys are still to come.
    """
    async with database.read() as conn:
        move = await load_move(conn)
    if move is not None and move.stage != "done":
        raise ConflictError(
            "a data folder is half moved into this deployment: run `meterline migrate-data` again,"
            " until it says that all is there"
        )
