"""A plan's way from the scratch tables into the store.

With its token, an insert that was done before does nothing. The tables forget tokens in time, and
then an insert without one has to say itself what is missing.
"""

from collections.abc import Awaitable, Callable, Sequence

from aggregator import rows
from aggregator.backfill import Backfill
from aggregator.rows import ONE_BLOCK, Missing, Statement
from aggregator.scratch import Scratch
from aggregator.series import Series
from aggregator.staging import Staged, all_done
from aggregator.stores.engine import Engine
from aggregator.stores.state import Plan


class Applying:
    """Fills the tables of the store for one partition."""

    def __init__(
        self, engine: Engine, part: int, on_step: Callable[[str], Awaitable[None]]
    ) -> None:
        self._engine = engine
        self._part = part
        self._on_step = on_step

    async def insert(
        self, plan: Plan, scratch: Scratch, series: Sequence[Series], staged: Staged, faults: int
    ) -> None:
        """Fill every table, side by side; once, however often it is called."""
        await all_done(
            *(
                self._table(plan, name, statements)
                for name, statements in _statements(plan, scratch, series, staged, faults, None)
            )
        )

    async def insert_missing(
        self,
        plan: Plan,
        scratch: Scratch,
        series: Sequence[Series],
        staged: Staged,
        faults: int,
        backfill: Backfill,
    ) -> None:
        """Insert what is not there yet, and make the totals of the series anew.

        Whether a point was added to the totals cannot be seen, so nobody else may add points or
        totals meanwhile. The tokens stay: a statement of a worker before, which may still be
        under way, and the same one here exclude each other.
        """
        missing = Missing(plan.first, plan.last)
        for name, statements in _statements(plan, scratch, series, staged, faults, missing):
            await self._table(plan, name, statements)
        used = await self._engine.query(f"SELECT DISTINCT series FROM {scratch.points}")
        await backfill.rebuild_totals([row[0] for row in used])

    async def _table(self, plan: Plan, name: str, statements: Sequence[Statement]) -> None:
        token = f"{plan.part}-{plan.first}-{plan.last}"
        for number, one in enumerate(statements):
            own = token if number == 0 else f"{token}-{number}"
            settings = {**ONE_BLOCK, "insert_deduplication_token": own}
            await self._engine.execute(one.sql, one.params, settings)
        await self._on_step(name)

    async def faults(self, plan: Plan, series: Sequence[Series]) -> Sequence[tuple[str, str, int]]:
        """Why values of a plan's events could not be used, and how many: by namespace."""
        namespaces = {one.id: one.namespace for one in series}
        found = await self._engine.query(
            "SELECT series, reason, count() FROM faults"
            f" WHERE part = {plan.part} AND off BETWEEN {plan.first} AND {plan.last}"
            " GROUP BY series, reason ORDER BY series, reason"
        )
        return [(namespaces[one], why, count) for one, why, count in found if one in namespaces]


def _statements(
    plan: Plan,
    scratch: Scratch,
    series: Sequence[Series],
    staged: Staged,
    faults: int,
    missing: Missing | None,
) -> list[tuple[str, list[Statement]]]:
    judged = staged.judged
    stored_at = {"stored_at": round(plan.planned_at.timestamp() * 1000)}
    tables = [
        ("events", [Statement(rows.insert_events(scratch, judged, missing), stored_at)]),
        ("keys", [Statement(rows.insert_keys(scratch, judged, missing))]),
        ("points", [Statement(rows.insert_points(scratch, missing))]),
    ]
    if faults:
        tables.append(("faults", rows.insert_faults(scratch, series, missing)))
    return tables
