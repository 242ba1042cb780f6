"""Moving stored events into series, and series out of the store: the engine's side of it.

Nothing here relies on deduplication tokens, because a read of the store may be cut into blocks
differently each time; what was cut short is deleted and done again. Totals are then rebuilt from
the points.
"""

from collections.abc import Iterable, Mapping, Sequence

from aggregator import rows
from aggregator.exact import read_points
from aggregator.scratch import FAULT_COLUMNS, FIND_SCRATCH, POINT_COLUMNS, Lease, encoded
from aggregator.series import Series, SeriesKey
from aggregator.stores.engine import Engine
from meterline.kernel.ids import new_secret

STEP_EVENTS = 1_000_000
"""About how many events one step of a back-fill moves."""
_PAGE = 5_000
_PLACES_A_STATEMENT = 5_000
_NO_TOKEN: dict[str, str | int] = {
    "async_insert": 0,
    "insert_deduplicate": 0,
    "min_insert_block_size_rows": 262_144,
}
_QUERY_ID = "meterline-backfill-"
"""How the ids of a back-fill's inserts begin, so that the next leader can end them."""
_WAIT: dict[str, str | int] = {"lightweight_deletes_sync": 2, "mutations_sync": 2}


class Backfill:
    """Fills, clears and rebuilds the tables of a series."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lease = Lease(0)

    async def lead(self, leader: int) -> None:
        """Begin to lead: from here on no back-fill of a leader before adds anything."""
        self._lease = Lease(leader)
        names = [row[0] for row in await self._engine.query(FIND_SCRATCH)]
        for name in self._lease.older(names):
            await self._engine.execute(f"DROP TABLE IF EXISTS {name} SYNC")
        # What began before the table was gone would still go on.
        await self._engine.kill(_QUERY_ID)
        for statement in self._lease.ddl():
            await self._engine.execute(statement)

    async def count(self, key: SeriesKey) -> int:
        """How many stored events a series is about."""
        return await self._count(key, "1")

    async def count_exact(self, series: Series) -> int:
        """How many stored events of the type must be read in Python."""
        return await self._count(series.key, "inexact = 1")

    async def insert_exact(self, series: Series) -> None:
        """The points and faults of stored events that must be read in Python."""
        for part, before in sorted(series.live_from.items()):
            after = (0, 0)
            while page := await self._inexact_page(series, part, before, after):
                await self._insert_exact(series, page)
                after = (page[-1][1], page[-1][2])

    async def insert_step(self, series: Series, part: int, after: int, through: int) -> None:
        """The points and faults of stored events at offsets in (after, through]."""
        points = rows.backfill_points(series, part, after, through, self._lease)
        await self._insert(points.sql, points.params)
        if series.kind != "count":
            faults = rows.backfill_faults(series, part, after, through, self._lease)
            await self._insert(faults.sql, faults.params)

    async def undo(self, series: Series) -> None:
        """Delete what was filled of the gaps, and rebuild the totals. The sink must stand still."""
        await self._engine.kill(_QUERY_ID)
        for part, after, before in series.gaps or [
            (part, 0, before) for part, before in series.live_from.items()
        ]:
            exact = "" if series.state == "preparing" else " AND exact = 0"
            where = f"series = {series.id} AND part = {part} AND off > {after} AND off < {before}"
            await self._delete("points", where + exact)
            await self._delete("faults", where + exact)
        await self.rebuild_totals([series.id])

    async def rebuild_totals(self, ids: Iterable[int]) -> None:
        """Make the totals of series agree with their points. The sink must stand still."""
        wanted = ", ".join(str(one) for one in sorted(set(ids)))
        if wanted:
            # A try before this one, whose answer was lost, may still be under way.
            await self._engine.kill(_QUERY_ID)
            await self._delete("totals", f"series IN ({wanted})")
            await self._insert(
                f"INSERT INTO totals {rows.totals_of_points(f'series IN ({wanted})')}"
            )

    async def drop(self, ids: Iterable[int]) -> None:
        """Delete all that is stored of series."""
        wanted = ", ".join(str(one) for one in sorted(set(ids)))
        for table in ("points", "totals", "faults"):
            await self._delete(table, f"series IN ({wanted})")

    async def erase(self, namespace: str, subject: str, series: Iterable[int]) -> None:
        """Erase a subject's events and points from disk, for good. The sink must stand still.

        The keys stay: they are hashes, and without them a re-sent event would count anew.
        """
        ids = ", ".join(str(one) for one in sorted(set(series)))
        params = {"ns": namespace, "subject": subject}
        mine = "ns = {ns:String} AND subject = {subject:String}"
        if ids:
            await self._erase_faults(ids, mine, params)
            await self._alter(
                "points", f"series IN ({ids}) AND subject = {{subject:String}}", params
            )
        await self._alter("events", mine, params)
        await self.rebuild_totals(series)

    async def _erase_faults(self, ids: str, mine: str, params: dict[str, str]) -> None:
        # A replica that deletes cannot ask the other shards for places: they are written out.
        places = await self._engine.query(
            f"SELECT part, off, idx FROM faults WHERE series IN ({ids}) AND (part, off, idx) IN"
            f" (SELECT part, off, idx FROM events WHERE {mine}) GROUP BY part, off, idx",
            params,
        )
        for start in range(0, len(places), _PLACES_A_STATEMENT):
            some = ", ".join(map(str, places[start : start + _PLACES_A_STATEMENT]))
            await self._alter("faults", f"series IN ({ids}) AND (part, off, idx) IN ({some})", {})

    async def _insert(self, sql: str, params: dict[str, object] | None = None) -> None:
        await self._engine.execute(sql, params, _NO_TOKEN, query_id=f"{_QUERY_ID}{new_secret(9)}")

    async def _delete(self, table: str, where: str) -> None:
        name = self._engine.layout.change(table)
        await self._engine.execute(f"DELETE FROM {name} WHERE {where}", None, _WAIT)

    async def _alter(self, table: str, where: str, params: Mapping[str, str]) -> None:
        """Delete from the disk, where `_delete` would only hide."""
        name = self._engine.layout.change(table)
        await self._engine.execute(f"ALTER TABLE {name} DELETE WHERE {where}", params, _WAIT)

    async def _count(self, key: SeriesKey, condition: str) -> int:
        found = await self._engine.query(
            "SELECT count() FROM events WHERE ns = {ns:String} AND type = {type:String}"
            f" AND status = 0 AND {condition}",
            {"ns": key.namespace, "type": key.event_type},
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
        points: list[tuple[object, ...]] = []
        faults: list[tuple[object, ...]] = []
        for part, off, idx, subject, time, data in page:
            (one,) = read_points(data, [series])
            place = (part, off, idx)
            if one.value is None:
                faults.append((series.id, *place, 1, one.reason))
            else:
                points.append((series.id, subject, time, *place, 1, one.value, one.text, one.dims))
        await self._move("points", self._lease.points, POINT_COLUMNS, points)
        await self._move("faults", self._lease.faults, FAULT_COLUMNS, faults)

    async def _move(
        self, table: str, leased: str, columns: Sequence[str], moved: list[tuple[object, ...]]
    ) -> None:
        """Insert rows by way of a scratch table, which only the leader has."""
        if moved:
            await self._engine.execute(f"TRUNCATE TABLE {leased}")
            await self._engine.load(leased, columns, "JSONCompactEachRow", encoded(moved))
            await self._insert(rows.insert_leased(table, leased, columns, len(moved)))


def step_offsets(events: int, live_from: Mapping[int, int]) -> int:
    """How many offsets one step should cover, for about `STEP_EVENTS` events of the type."""
    span = max((before - 1 for before in live_from.values()), default=0)
    steps = max(1, -(-events // STEP_EVENTS))
    return max(1, -(-span // steps))


def positions_reached(series: Series, positions: Mapping[int, int]) -> bool:
    """Whether the sink has applied everything that a back-fill has to read."""
    return all(positions.get(part, 0) >= before - 1 for part, before in series.live_from.items())
