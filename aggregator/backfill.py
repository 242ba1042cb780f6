"""Moving stored events into series, and series out of the store: the engine's side of it.

Nothing here relies on deduplication tokens, because a read of the store may be cut into blocks
differently each time; what was cut short is deleted and done again. Totals are then rebuilt from
the points.
"""

from collections.abc import Iterable, Mapping

import msgspec

from aggregator import rows
from aggregator.exact import read_points
from aggregator.series import Series
from aggregator.stores.engine import Engine

STEP_EVENTS = 1_000_000
"""About how many events one step of a back-fill moves."""
_PAGE = 5_000
_NO_TOKEN: dict[str, str | int] = {
    "async_insert": 0,
    "insert_deduplicate": 0,
    "min_insert_block_size_rows": 262_144,
    "lightweight_deletes_sync": 2,
    "mutations_sync": 2,
}
_POINT_COLUMNS = (
    "series", "subject", "time", "part", "off", "idx", "exact", "value", "text", "dims",
)  # fmt: skip


class Backfill:
    """Fills, clears and rebuilds the tables of a series."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def step_offsets(self, series: Series) -> int:
        """How many offsets one step should cover, for about `STEP_EVENTS` events of the type."""
        total = await self._count(series, "1")
        span = max((before - 1 for before in series.live_from.values()), default=0)
        steps = max(1, -(-total // STEP_EVENTS))
        return max(1, -(-span // steps))

    async def count_exact(self, series: Series) -> int:
        """How many stored events of the type must be read in Python."""
        return await self._count(series, "inexact = 1")

    async def insert_exact(self, series: Series) -> None:
        """The points and faults of stored events that must be read in Python."""
        for part, before in sorted(series.live_from.items()):
            after = (0, 0)
            while page := await self._inexact_page(series, part, before, after):
                await self._insert_exact(series, page)
                after = (page[-1][1], page[-1][2])

    async def insert_step(self, series: Series, part: int, after: int, through: int) -> None:
        """The points and faults of stored events at offsets in (after, through]."""
        points = rows.backfill_points(series, part, after, through)
        await self._engine.execute(points.sql, points.params, _NO_TOKEN)
        if series.kind != "count":
            faults = rows.backfill_faults(series, part, after, through)
            await self._engine.execute(faults.sql, faults.params, _NO_TOKEN)

    async def undo(self, series: Series) -> None:
        """Delete what was filled of the gaps, and rebuild the totals. The sink must stand still."""
        for part, after, before in series.gaps or [
            (part, 0, before) for part, before in series.live_from.items()
        ]:
            exact = "" if series.state == "preparing" else " AND exact = 0"
            where = f"series = {series.id} AND part = {part} AND off > {after} AND off < {before}"
            await self._engine.execute(f"DELETE FROM points WHERE {where}{exact}", None, _NO_TOKEN)
            await self._engine.execute(f"DELETE FROM faults WHERE {where}{exact}", None, _NO_TOKEN)
        await self.rebuild_totals([series.id])

    async def rebuild_totals(self, ids: Iterable[int]) -> None:
        """Make the totals of series agree with their points. The sink must stand still."""
        wanted = ", ".join(str(one) for one in sorted(set(ids)))
        if wanted:
            await self._engine.execute(
                f"DELETE FROM totals WHERE series IN ({wanted})", None, _NO_TOKEN
            )
            await self._engine.execute(
                f"INSERT INTO totals {rows.totals_of_points(f'series IN ({wanted})')}",
                None,
                _NO_TOKEN,
            )

    async def drop(self, ids: Iterable[int]) -> None:
        """Delete all that is stored of series."""
        wanted = ", ".join(str(one) for one in sorted(set(ids)))
        for table in ("points", "totals", "faults"):
            await self._engine.execute(
                f"DELETE FROM {table} WHERE series IN ({wanted})", None, _NO_TOKEN
            )

    async def erase(self, namespace: str, subject: str, series: Iterable[int]) -> None:
        """Erase a subject's events and points from disk, for good. The sink must stand still.

        The keys stay: they are hashes, and without them a re-sent event would count anew.
        """
        ids = ", ".join(str(one) for one in sorted(set(series)))
        params = {"ns": namespace, "subject": subject}
        mine = "ns = {ns:String} AND subject = {subject:String}"
        if ids:
            await self._engine.execute(
                f"ALTER TABLE faults DELETE WHERE series IN ({ids}) AND (part, off, idx) IN"
                f" (SELECT part, off, idx FROM events WHERE {mine})",
                params,
                _NO_TOKEN,
            )
            await self._engine.execute(
                f"ALTER TABLE points DELETE WHERE series IN ({ids})"
                " AND subject = {subject:String}",
                params,
                _NO_TOKEN,
            )
        await self._engine.execute(f"ALTER TABLE events DELETE WHERE {mine}", params, _NO_TOKEN)
        await self.rebuild_totals(series)

    async def _count(self, series: Series, condition: str) -> int:
        found = await self._engine.query(
            "SELECT count() FROM events WHERE ns = {ns:String} AND type = {type:String}"
            f" AND status = 0 AND {condition}",
            {"ns": series.namespace, "type": series.event_type},
        )
        return int(found[0][0])

    async def _inexact_page(
        self, series: Series, part: int, before: int, after: tuple[int, int]
    ) -> list[tuple[int, int, int, str, str, str]]:
        return await self._engine.query(
            "SELECT part, off, idx, subject, toString(time), data FROM events"
            " WHERE ns = {ns:String} AND type = {type:String} AND status = 0 AND inexact = 1"
            f" AND part = {part} AND off < {before} AND (off, idx) > {after}"
            f" ORDER BY off, idx LIMIT {_PAGE}",
            {"ns": series.namespace, "type": series.event_type},
        )

    async def _insert_exact(
        self, series: Series, page: Iterable[tuple[int, int, int, str, str, str]]
    ) -> None:
        points: list[bytes] = []
        faults: list[bytes] = []
        for part, off, idx, subject, time, data in page:
            (point,) = read_points(data, [series])
            if point.value is None:
                faults.append(_line(series.id, part, off, idx, 1, point.reason))
            else:
                points.append(
                    _line(
                        series.id,
                        subject,
                        time,
                        part,
                        off,
                        idx,
                        1,
                        point.value,
                        point.text,
                        point.dims,
                    )  # fmt: skip
                )
        if points:
            await self._engine.load(
                "points", _POINT_COLUMNS, "JSONCompactEachRow", b"\n".join(points), _NO_TOKEN
            )
        if faults:
            columns = ("series", "part", "off", "idx", "exact", "reason")
            await self._engine.load(
                "faults", columns, "JSONCompactEachRow", b"\n".join(faults), _NO_TOKEN
            )


def _line(*cells: object) -> bytes:
    # Decimals are encoded as strings, which the engine reads exactly.
    return msgspec.json.encode(cells)


def positions_reached(series: Series, positions: Mapping[int, int]) -> bool:
    """Whether the sink has applied everything that a back-fill has to read."""
    return all(positions.get(part, 0) >= before - 1 for part, before in series.live_from.items())
