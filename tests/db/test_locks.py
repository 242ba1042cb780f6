"""The gate: many pass, one changes, and everything stands still when somebody needs it to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from aggregator.stores import state
from meterline.db.engine import Database
from meterline.db.locks import Gate
from meterline.kernel.errors import UnavailableError
from tests.support.database import opened

PLAN = sa.insert(state.sink_plans).values(
    part=0, first=1, last=2, planned_at=sa.func.now(), series=[], skipped=[], seq=1,
    slow=False,
)  # fmt: skip


@pytest_asyncio.fixture
async def gates(any_url: str) -> AsyncIterator[tuple[Gate, Gate]]:
    """The gate as two processes have it; on SQLite there is one process, and one gate."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(opened(any_url))
        if first.dialect == "sqlite":
            gate = Gate(first, wait_seconds=0.3)
            yield gate, gate
        else:
            second = await stack.enter_async_context(opened(any_url))
            yield Gate(first, wait_seconds=0.3), Gate(second, wait_seconds=0.3)


async def _plans(database: Database) -> int:
    async with database.read() as conn:
        return len(await state.load_plans(conn))


async def test_nothing_passes_while_all_stands_still(gates: tuple[Gate, Gate]) -> None:
    first, second = gates
    order: list[str] = []

    async def passing() -> None:
        async with second.shared() as conn:
            order.append("passed")
            await conn.execute(PLAN)

    async with first.standing_still(state.no_plans) as held:
        task = asyncio.create_task(passing())
        await asyncio.sleep(0.1)
        await held.during(asyncio.sleep(0))
        order.append("still")
        async with held.transaction() as conn:
            await conn.execute(sa.update(state.sink_state).values(plans=7))
    await task
    assert order == ["still", "passed"]
    assert await _plans(first.database) == 1
    async with second.database.read() as conn:
        assert await state.plans_made(conn) == 7


async def test_standing_still_waits_for_what_was_begun(gates: tuple[Gate, Gate]) -> None:
    first, second = gates
    async with second.shared() as conn:
        await conn.execute(PLAN)
    with pytest.raises(UnavailableError):
        async with first.standing_still(state.no_plans):
            raise AssertionError("a plan is under way")

    async def finish() -> None:
        await asyncio.sleep(0.05)
        async with second.database.transaction() as conn:
            await conn.execute(sa.delete(state.sink_plans))

    task = asyncio.create_task(finish())
    async with first.standing_still(state.no_plans):
        assert await _plans(first.database) == 0
    await task


async def test_what_was_written_under_a_lock_is_lost_with_an_error(
    gates: tuple[Gate, Gate],
) -> None:
    first, _ = gates
    with pytest.raises(KeyError):
        async with first.exclusive() as conn:
            await conn.execute(PLAN)
            raise KeyError
    assert await _plans(first.database) == 0


async def test_one_changes_at_a_time(gates: tuple[Gate, Gate]) -> None:
    inside = 0

    async def change(gate: Gate) -> None:
        nonlocal inside
        async with gate.exclusive() as conn:
            inside += 1
            assert inside == 1
            made = await state.plans_made(conn)
            await asyncio.sleep(0.005)
            await conn.execute(sa.update(state.sink_state).values(plans=made + 1))
            inside -= 1

    await asyncio.gather(*(change(gates[number % 2]) for number in range(10)))
    async with gates[0].database.read() as conn:
        assert await state.plans_made(conn) == 10


async def test_one_leads(gates: tuple[Gate, Gate]) -> None:
    first, second = gates
    async with first.leadership("upkeep") as leader:
        assert leader is not None
        async with second.leadership("upkeep") as other, second.leadership("else") as another:
            assert other is None and another is not None
    async with second.leadership("upkeep") as leader:
        assert leader is not None


async def test_work_is_cancelled_when_the_lock_is_lost(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meterline.db.locks._HEARTBEAT_SECONDS", 0.02)
    cancelled = False

    async def work() -> None:
        nonlocal cancelled
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    async with opened(postgres_url) as database, opened(postgres_url) as other:
        with pytest.raises(UnavailableError):
            async with Gate(database).mutex("backfill") as held:
                async with other.transaction() as conn:
                    await _end_others(conn)
                await held.during(work())
        assert cancelled
        async with Gate(other).leadership("backfill") as leader:
            assert leader is not None


async def _end_others(conn: AsyncConnection) -> None:
    await conn.execute(
        sa.text(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )
