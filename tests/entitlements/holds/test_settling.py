"""Holds are settled once and whole, whatever happens between the look and the transaction."""

import pytest
import sqlalchemy as sa

from entitlements.holds import store
from entitlements.holds.settling import prepared
from entitlements.holds.tables import accounts, holds
from meterline.db.engine import Database

_EVENTS = [("default", f"h{number}") for number in range(4)]


async def _fill(database: Database) -> None:
    """Four holds of 1, 2, 3 and 4 on two balances, confirmed."""
    account = {"namespace": "default", "feature_key": "tokens", "held": "0", "entries": 0}
    async with database.transaction() as conn:
        for subject, pending in (("a", "4"), ("b", "6.5")):
            values = {**account, "subject": subject, "pending": pending, "ledger": "0"}
            await conn.execute(sa.insert(accounts).values(**values, ledger_at=0))
        for number, (namespace, hold_id) in enumerate(_EVENTS):
            await conn.execute(
                sa.insert(holds).values(
                    namespace=namespace, id=hold_id, subject="ab"[number % 2],
                    feature_key="tokens", entitlement_id="e", face="hold", state="confirmed",
                    amount="9", ttl_seconds="60", on_excess="block", details="", metadata="{}",
                    created_at=number, closed_at=number, confirmed=str(number + 1), settled=False,
                    outbox="[]",
                )
            )  # fmt: skip


async def _pending(database: Database) -> list[str]:
    async with database.read() as conn:
        found = await conn.execute(sa.select(accounts.c.pending).order_by(accounts.c.subject))
        return list(found.scalars())


async def _waiting(database: Database) -> list[str]:
    """Those that are not settled, or whose events are still to be sent."""
    async with database.read() as conn:
        which = sa.or_(~holds.c.settled, holds.c.outbox.is_not(None))
        return sorted((await conn.execute(sa.select(holds.c.id).where(which))).scalars())


async def _settle(database: Database, between: sa.Update | sa.Delete | None = None) -> None:
    async with database.read() as conn:
        settle = await prepared(conn, _EVENTS)
    if between is not None:
        async with database.transaction() as conn:
            await conn.execute(between)
    async with database.transaction() as conn:
        await settle(conn)


async def test_holds_are_settled_once(any_database: Database) -> None:
    await _fill(any_database)
    for _ in range(2):
        await _settle(any_database)
        assert await _pending(any_database) == ["0", "0.5"]
        assert await _waiting(any_database) == []


_MINE = sa.update(holds).where(holds.c.id == "h1")


@pytest.mark.parametrize(
    ("between", "pending", "waiting"),
    [
        (_MINE.values(settled=True, outbox=None), ["0", "2.5"], []),
        (_MINE.values(confirmed="6"), ["0", "-3.5"], []),
        (_MINE.values(state="open"), ["0", "2.5"], ["h1"]),
        (_MINE.values(id="other"), ["0", "2.5"], ["other"]),
        (sa.delete(holds).where(holds.c.id == "h1"), ["0", "2.5"], []),
    ],
)
async def test_what_changed_since_the_look_counts(
    any_database: Database,
    between: sa.Update | sa.Delete,
    pending: list[str],
    waiting: list[str],
) -> None:
    await _fill(any_database)
    await _settle(any_database, between)
    assert await _pending(any_database) == pending
    assert await _waiting(any_database) == waiting


async def test_a_hold_that_is_confirmed_after_the_look_is_settled(any_database: Database) -> None:
    await _fill(any_database)
    async with any_database.transaction() as conn:
        await conn.execute(_MINE.values(state="open", confirmed=None))
    await _settle(any_database, _MINE.values(state="confirmed", confirmed="2"))
    assert await _pending(any_database) == ["0", "0.5"]
    assert await _waiting(any_database) == []


async def test_a_changed_row_leaves_nothing_half_done(
    any_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        return

    await _fill(any_database)
    if any_database.dialect == "sqlite":
        monkeypatch.setattr(store, "settle", nothing)
        await _settle(any_database, _MINE.values(confirmed="6"))
        assert await _pending(any_database) == ["4", "6.5"]
        assert await _waiting(any_database) == ["h0", "h1", "h2", "h3"]
