"""Holds in the relational database. Functions run in the caller's transaction.

Whoever changes holds of a balance, or what is set aside of it, holds the lock of its account row.
Locks of several are taken in the order of their keys. What is read after the locks is then true
until the transaction ends: the sink settles under the same locks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from entitlements.balance.exact import ROOM
from entitlements.holds.book import Account, Basis, Book
from entitlements.holds.model import Face, Hold, OnExcess, Opening, Place, State
from entitlements.holds.outbox import write_event
from entitlements.holds.tables import accounts, entries, holds
from entitlements.stores.live import Stored, decode
from meterline.db.steps import Ask, Each, Steps, Write, insert, on, plain, update
from meterline.db.tables import upsert
from meterline.kernel.quantity import format_number

_ACCOUNT = (
    "a.namespace, a.subject, a.feature_key, a.held, a.pending, a.next_expiry, a.entries, a.ledger"  # noqa: E501
)
_HOLD_COLUMNS = (
    "namespace", "id", "subject", "feature_key", "entitlement_id", "face", "state", "amount",
    "ttl_seconds", "on_excess", "model", "details", "metadata", "created_at", "expires_at",
    "closed_at", "confirmed", "limit_amount", "current_amount", "available", "closing", "settled",
)  # fmt: skip
_HOLD = ", ".join(f"h.{name}" for name in _HOLD_COLUMNS)
_LIVE = "l.namespace, l.subject, l.feature_key, l.entitlement_id, l.series, l.usage, l.due, l.state"
_JSON_PLACES = (
    "(SELECT json_extract(value, '$[0]') AS n, json_extract(value, '$[1]') AS s,"
    " json_extract(value, '$[2]') AS f FROM json_each(?)) AS w CROSS JOIN"
)
_ARRAY_PLACES = "unnest($1::text[], $2::text[], $3::text[]) AS w(n, s, f) JOIN"
_JSON_IDS = (
    "(SELECT json_extract(value, '$[0]') AS n, json_extract(value, '$[1]') AS i"
    " FROM json_each(?)) AS w CROSS JOIN"
)
_ARRAY_IDS = "unnest($1::text[], $2::text[]) AS w(n, i) JOIN"
_REMEMBERED = 4_096
"""Live rows that are kept as they were read, of a few KiB each."""
_AT = "{0}.namespace = w.n AND {0}.subject = w.s AND {0}.feature_key = w.f"


def _both(sqlite: str, postgresql: str) -> Mapping[str, str]:
    return {"sqlite": sqlite, "postgresql": postgresql}


_LOCK = _both(
    f"SELECT {_ACCOUNT} FROM {_JSON_PLACES} hold_accounts AS a ON {_AT.format('a')}",
    f"SELECT {_ACCOUNT} FROM {_ARRAY_PLACES} hold_accounts AS a ON {_AT.format('a')}"
    " ORDER BY a.namespace, a.subject, a.feature_key FOR UPDATE OF a",
)
_ROWS = _both(
    f"SELECT {_LIVE} FROM {_JSON_PLACES} live_entitlements AS l ON {_AT.format('l')} AND l.valid",
    f"SELECT {_LIVE} FROM {_ARRAY_PLACES} live_entitlements AS l ON {_AT.format('l')} AND l.valid",
)
_BY_IDS = _both(
    f"SELECT {_HOLD} FROM {_JSON_IDS} holds AS h ON h.namespace = w.n AND h.id = w.i",
    f"SELECT {_HOLD} FROM {_ARRAY_IDS} holds AS h ON h.namespace = w.n AND h.id = w.i",
)
_SEEN = {
    "postgresql": "SELECT w.n, w.s, w.f, a.held, a.pending, a.next_expiry, a.entries, a.ledger,"
    " a.xmin::text, l.entitlement_id, l.series, l.usage, l.due, l.state"
    " FROM unnest($1::text[], $2::text[], $3::text[]) AS w(n, s, f)"
    f" LEFT JOIN hold_accounts AS a ON {_AT.format('a')}"
    f" LEFT JOIN live_entitlements AS l ON {_AT.format('l')} AND l.valid"
}
_GUARD = {
    "postgresql": "SELECT 1 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[])"
    f" AS w(n, s, f, v) JOIN hold_accounts AS a ON {_AT.format('a')} AND a.xmin::text = w.v"
    " ORDER BY a.namespace, a.subject, a.feature_key FOR UPDATE OF a"
}
_SETTLED = "namespace, id, subject, feature_key, confirmed"
_UNSETTLED = _both(
    # All of it in one statement, which needs no look at the others: SQLite has no row locks.
    "UPDATE holds SET settled = 1, outbox = NULL FROM (SELECT json_extract(value, '$[0]') AS n,"
    " json_extract(value, '$[1]') AS i FROM json_each(?)) AS w WHERE namespace = w.n AND id = w.i"
    f" AND state = 'confirmed' AND NOT settled RETURNING {_SETTLED}",
    f"SELECT {_SETTLED} FROM {_ARRAY_IDS} holds AS h ON h.namespace = w.n AND h.id = w.i"
    " AND h.state = 'confirmed' AND NOT h.settled",
)


_PLACE = {"namespace": "text", "subject": "text", "feature_key": "text"}
_ID = {"namespace": "text", "id": "text"}
_OTHERS = {"created_at": "bigint", "expires_at": "bigint", "closed_at": "bigint", "settled": "bool"}
_ADD = insert("holds", {name: _OTHERS.get(name, "text") for name in (*_HOLD_COLUMNS, "outbox")})
_CHANGE = update(
    "holds",
    {
        "state": "text", "closed_at": "bigint", "confirmed": "text", "available": "text",
        "closing": "text", "outbox": "text",
    },
    _ID,
)  # fmt: skip
_MOVE = update(
    "hold_accounts",
    {
        "held": "text", "pending": "text", "next_expiry": "bigint", "entries": "bigint",
        "ledger": "text",
    },
    _PLACE,
)  # fmt: skip
_ENTER = insert(
    "balance_entries",
    {
        **_PLACE, "number": "bigint", "amount": "text", "balance": "text", "kind": "text",
        "at": "bigint", "ref": "text", "reason": "text",
    },
)  # fmt: skip
_SENT = update("holds", {"outbox": "text"}, _ID)
_DUE = plain(
    f"SELECT {_HOLD} FROM holds AS h WHERE h.namespace = ? AND h.subject = ?"
    " AND h.feature_key = ? AND h.state = 'open' AND h.expires_at <= ?"
)
_NEXT = plain(
    "SELECT min(expires_at) FROM holds WHERE namespace = ? AND subject = ? AND feature_key = ?"
    " AND state = 'open' AND expires_at > ?"
)
_SETTLE = {"postgresql": update("holds", {"settled": "bool", "outbox": "text"}, _ID)["postgresql"]}
SETTLE_ACCOUNT = update("hold_accounts", {"pending": "text"}, _PLACE)


def lock(places: Iterable[Place]) -> Steps[dict[Place, Account]]:
    """The accounts of balances, locked until the transaction ends; those that there are."""
    asked = sorted(set(places))
    found = (yield Ask(_LOCK, keys=asked)) if asked else ()
    return {place: account for row in found for place, account in [_account(row)]}


async def create(conn: AsyncConnection, places: Iterable[Place]) -> None:
    """Make accounts where there are none."""
    zero = {"held": "0", "pending": "0", "entries": 0, "ledger": "0", "ledger_at": 0}
    new = [{**place._asdict(), **zero} for place in sorted(set(places))]
    if new:
        await conn.execute(upsert(conn, accounts, list(Place._fields), []), new)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was true of balances at one instant, without any lock."""

    accounts: dict[Place, Account]
    versions: dict[Place, str]
    """Of the accounts: another one says that somebody has changed the balance since."""
    bases: dict[Place, Basis]


def see(places: Iterable[Place]) -> Steps[Seen]:
    """Accounts and live rows in one look, on PostgreSQL."""
    seen = Seen({}, {}, {})
    for row in (yield Ask(_SEEN, keys=sorted(set(places)))):
        place = Place(*row[:3])
        if row[3] is not None:
            _, seen.accounts[place] = _account(row)
            seen.versions[place] = row[8]
        if row[9] is not None:
            seen.bases[place] = _basis(*row[9:14])
    return seen


def bases_of(places: Iterable[Place]) -> Steps[dict[Place, Basis]]:
    """The live rows of balances, those that hold."""
    asked = sorted(set(places))
    found = (yield Ask(_ROWS, keys=asked)) if asked else ()
    return {Place(*row[:3]): _basis(*row[3:]) for row in found}


@lru_cache(_REMEMBERED)
def _basis(*columns: Any) -> Basis:
    """Of the columns of a live row: groups that follow each other mostly find the same."""
    return Basis(decode(Stored(*columns)))


def by_ids(ids: Iterable[tuple[str, str]]) -> Steps[dict[tuple[str, str], Hold]]:
    """Holds by (namespace, id)."""
    asked = sorted(set(ids))
    found = (yield Ask(_BY_IDS, keys=asked)) if asked else ()
    return {(row[0], row[1]): hold_of(row) for row in found}


def due(place: Place, now: int) -> Steps[tuple[list[Hold], int | None]]:
    """The open holds whose time has come, and when the next one's will."""
    expired = yield Ask(_DUE, (*place, now))
    following = yield Ask(_NEXT, (*place, now))
    return [hold_of(row) for row in expired], following[0][0]


def write(book: Book, sent: Sequence[tuple[str, str]]) -> Steps[None]:
    """Write what a group has changed, and which events are durable by now."""
    yield Write(_changes(book))
    # After the others: a hold that changes here may be one of them.
    yield Write([Each(_SENT, [(None, *key) for key in sorted(sent)])])


def write_unless_changed(book: Book, versions: Mapping[Place, str]) -> Steps[str | None]:
    """Write what a group has changed, if the accounts that it changes still have these versions.

    Answers their new version; None when nothing was written. In one statement, which locks them.
    """
    touched = sorted(book.touched)
    if not touched:
        yield Write(_changes(book))
        return ""
    guard = Each(_GUARD, [(*place, versions[place]) for place in touched])
    found = yield Write(_changes(book), guard)
    return found[0][0] if found else None


def _changes(book: Book) -> Sequence[Each]:
    outbox = {key: write_event(event) for key, event in book.outbox.items()}
    changed = [
        (
            one.state.value, one.closed_at, _text(one.confirmed), _text(one.available),
            one.closing, outbox.get(key), *key,
        )
        for key, one in book.changed.items()
    ]  # fmt: skip
    moved = [book.accounts[place] for place in sorted(book.touched)]
    entered = [
        (*one.place, one.number, format_number(one.amount), format_number(one.balance),
         one.kind, one.at, one.ref, one.reason)
        for one in book.entries
    ]  # fmt: skip
    return (
        Each(_ADD, [(*_row(one), outbox.get(key)) for key, one in book.new.items()]),
        Each(_CHANGE, changed),
        Each(_MOVE, [(*_moved(one), *one.place) for one in moved]),
        Each(_ENTER, entered),
    )


async def settle(conn: AsyncConnection, events: Sequence[tuple[str, str]]) -> None:
    """The events of these holds, by (namespace, id), became usage in this very transaction."""
    await on(conn, _settle(events))


def _settle(events: Sequence[tuple[str, str]]) -> Steps[None]:
    found = (yield Ask(_UNSETTLED, keys=sorted(set(events)))) if events else ()
    if not found:
        return
    places = [Place(namespace, subject, key) for namespace, _, subject, key, _ in found]
    locked = yield from lock(places)
    pending = {place: account.pending for place, account in locked.items()}
    for place, row in zip(places, found, strict=True):
        pending[place] = ROOM.subtract(pending[place], Decimal(row[4] or 0))
    keys = sorted((row[0], row[1]) for row in found)
    moved = [(format_number(amount), *place) for place, amount in sorted(pending.items())]
    # The rows of holds after the accounts, as everybody has it.
    settled = Each(_SETTLE, [(True, None, *key) for key in keys])
    yield Write([settled, Each(SETTLE_ACCOUNT, moved)])


async def erase(conn: AsyncConnection, namespace: str, subject: str) -> None:
    """Delete all holds of a subject, and the history of its balances."""
    for table in (holds, entries, accounts):
        mine = (table.c.namespace == namespace) & (table.c.subject == subject)
        await conn.execute(sa.delete(table).where(mine))


def hold_of(row: Sequence[Any]) -> Hold:
    """A hold of its columns, in the order of `_HOLD_COLUMNS`."""
    (
        namespace, hold_id, subject, feature_key, entitlement_id, face, state, amount, ttl_seconds,
        on_excess, model, details, metadata, created_at, expires_at, closed_at, confirmed, limit,
        current, available, closing, settled,
    ) = row  # fmt: skip
    opening = Opening(
        hold_id,
        Place(namespace, subject, feature_key),
        Decimal(amount),
        Decimal(ttl_seconds),
        OnExcess(on_excess),
        Face(face),
        model,
        details,
        metadata,
    )
    return Hold(
        opening, entitlement_id, State(state), created_at, expires_at, closed_at,
        _amount(confirmed), _amount(limit), _amount(current), _amount(available), closing,
        bool(settled),
    )  # fmt: skip


HOLD_COLUMNS = tuple(holds.c[name] for name in _HOLD_COLUMNS)
"""What `hold_of` reads."""


def _row(hold: Hold) -> tuple[Any, ...]:
    of = hold.opening
    return (
        of.place.namespace, of.id, of.place.subject, of.place.feature_key, hold.entitlement_id,
        of.face.value, hold.state.value, format_number(of.amount), format_number(of.ttl_seconds),
        of.on_excess.value, of.model, of.details, of.metadata, hold.created_at, hold.expires_at,
        hold.closed_at, _text(hold.confirmed), _text(hold.limit), _text(hold.current),
        _text(hold.available), hold.closing, hold.settled,
    )  # fmt: skip


def _account(row: Sequence[Any]) -> tuple[Place, Account]:
    place = Place(*row[:3])
    held, pending, next_expiry, count, ledger = row[3:8]
    return place, Account(
        place, Decimal(held), Decimal(pending), next_expiry, count, Decimal(ledger)
    )


def _moved(account: Account) -> tuple[Any, ...]:
    return (
        format_number(account.held), format_number(account.pending), account.next_expiry,
        account.entries, format_number(account.ledger),
    )  # fmt: skip


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else format_number(amount)


def _amount(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
