"""Settling holds on SQLite in two parts: what is known before, and what needs the only write lock.

The events of a step are of holds that were confirmed long before, and what a confirmed hold says
does not change. So it is read before the transaction; there, one statement marks all of them, if
each is still what was read. If anything is different, they are settled as if nothing were known.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance.exact import ROOM
from entitlements.holds import store
from entitlements.holds.book import Account
from entitlements.holds.model import Place
from meterline.db.steps import ROWS, Ask, Each, Row, Steps, Write, on
from meterline.kernel.quantity import format_number

Events = Sequence[tuple[str, str]]
"""Namespace and id of holds."""

_READ = {
    "sqlite": "SELECT h.rowid, h.namespace, h.id, h.subject, h.feature_key, h.confirmed"
    " FROM (SELECT json_extract(value, '$[0]') AS n, json_extract(value, '$[1]') AS i"
    " FROM json_each(?)) AS w CROSS JOIN holds AS h ON h.namespace = w.n AND h.id = w.i"
    " AND h.state = 'confirmed' AND NOT h.settled"
}
# By the number of its row, as those of one time lie together; a number may have become another
# row's, so the rest must be the same, too.
_MARK = {
    "sqlite": "WITH w (at, namespace, id, subject, feature_key, confirmed)"
    f" AS (VALUES {ROWS}) UPDATE OR FAIL holds AS t SET settled = 1, outbox = NULL FROM w"
    " WHERE t.rowid = w.at AND t.namespace = w.namespace AND t.id = w.id AND t.subject = w.subject"
    " AND t.feature_key = w.feature_key AND t.confirmed = w.confirmed AND t.state = 'confirmed'"
    " AND NOT t.settled"
}
_CHANGES = {"sqlite": "SELECT total_changes()"}
_BEGIN = {"sqlite": "SAVEPOINT settling"}
_UNDO = {"sqlite": "ROLLBACK TO settling"}
_END = {"sqlite": "RELEASE settling"}


@dataclass(frozen=True, slots=True)
class _Known:
    """Confirmed holds that are not settled: their rows, and what they add up to."""

    rows: Sequence[Row]
    amounts: Mapping[Place, Decimal]


async def prepared(
    conn: AsyncConnection, events: Events
) -> Callable[[AsyncConnection], Awaitable[None]]:
    """What settles the holds of these events, in the transaction in which they become usage."""
    known = await on(conn, _read(events)) if conn.dialect.name == "sqlite" else None

    async def settle(writing: AsyncConnection) -> None:
        if known is None or not await on(writing, _settle(known)):
            await store.settle(writing, events)

    return settle


def _read(events: Events) -> Steps[_Known | None]:
    """None unless every event is of a hold that waits for it."""
    asked = sorted(set(events))
    found = (yield Ask(_READ, keys=asked)) if asked else ()
    if len(found) < len(asked) or any(row[5] is None for row in found):
        return None
    amounts: dict[Place, Decimal] = {}
    for _, namespace, _, subject, key, confirmed in found:
        place = Place(namespace, subject, key)
        amounts[place] = ROOM.add(amounts.get(place, Decimal(0)), Decimal(confirmed))
    return _Known(sorted(found, key=lambda row: int(row[0])), amounts)


def _settle(known: _Known) -> Steps[bool]:
    """Whether all was as it is known; nothing was written else."""
    yield Ask(_BEGIN)
    before = yield Ask(_CHANGES)
    yield Write([Each(_MARK, known.rows)])
    after = yield Ask(_CHANGES)
    accounts = yield from store.lock(known.amounts)
    changed = after[0][0] - before[0][0]
    same = changed == len(known.rows) and len(accounts) == len(known.amounts)
    if same:
        yield Write([Each(store.SETTLE_ACCOUNT, _moved(known, accounts))])
    else:
        yield Ask(_UNDO)
    yield Ask(_END)
    return same


def _moved(known: _Known, accounts: Mapping[Place, Account]) -> Sequence[Row]:
    return [
        (format_number(ROOM.subtract(accounts[place].pending, amount)), *place)
        for place, amount in sorted(known.amounts.items())
    ]
