"""Groups of requests about holds: one transaction each, in the order in which they came."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from entitlements.events import UsageEvent
from entitlements.holds import store
from entitlements.holds.book import Account, Basis, Book, Confirm, Expire, Item, Open, Release, Sent
from entitlements.holds.memory import Memory, Versions
from entitlements.holds.model import Hold, Place
from meterline.db.engine import Database
from meterline.db.steps import (
    CollisionError,
    Row,
    Steps,
    in_a_row,
    in_transaction,
    mark,
    one_by_one,
)
from meterline.kernel.errors import UnavailableError
from meterline.kernel.instants import to_micros

Outcome = Hold | None
More = Callable[[Sequence[Outcome | Exception]], Sequence[Item]]
_TRIES = 5
_IN_A_ROW = 4
"""Groups, until other writers have their turn."""


class _MissingError(Exception):
    """Balances that have no account row yet."""

    def __init__(self, places: Sequence[Place]) -> None:
        super().__init__()
        self.places = places


@dataclass(frozen=True, slots=True)
class _Done:
    """What a transaction came to, what it has found there, and its mark at the end."""

    book: Book
    outcomes: Sequence[Outcome | Exception]
    kept: Collection[Place]
    bases: Mapping[Place, Basis]
    mark: Row | None


Following = Callable[[_Done], Steps[_Done] | None]


class Groups:
    """Commits groups of items; `confirmed` is told the events of what was confirmed."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        reading_time: Callable[[], datetime],
        is_tracked: Callable[[int], bool],
        confirmed: Callable[[Sequence[tuple[str, UsageEvent]]], None],
    ) -> None:
        self._database = database
        self._clock = clock
        self._reading_time = reading_time
        self._is_tracked = is_tracked
        self._confirmed = confirmed
        self._memory = Memory()
        self._versions = Versions()

    async def commit(self, items: Sequence[Item], more: More) -> Sequence[Outcome | Exception]:
        """The outcomes, in the order of the items.

        If `more` (see `Grouping.more`) gave other groups, those of the last one.
        """
        loop = asyncio.get_running_loop()
        left = _IN_A_ROW

        def following(done: _Done) -> Steps[_Done] | None:
            # In the thread of the connection.
            nonlocal items, left
            if done.mark is not None:
                self._memory.learn(done.book, done.kept, done.bases, done.mark)
            loop.call_soon_threadsafe(self._tell, done.book)
            left -= 1
            then = more(done.outcomes) if left > 0 else ()
            if not then:
                return None
            items = then
            return self._steps(then, hopeful=True)

        hopeful = True
        for _ in range(_TRIES):
            try:
                return (await self._commit(items, following, hopeful=hopeful)).outcomes
            except _MissingError as missing:
                async with self._database.transaction() as conn:
                    await store.create(conn, missing.places)
            except CollisionError:
                # There is a hold of the same id, perhaps of another process: now it can be read.
                hopeful = False
            except BaseException:
                self._memory.forget()
                raise
            # Who has to try again goes on alone.
            left = 0
        raise UnavailableError("holds change too quickly to decide")

    async def _commit(self, items: Sequence[Item], following: Following, *, hopeful: bool) -> _Done:
        if self._database.dialect == "sqlite":
            steps = self._steps(items, hopeful=hopeful)
            return await in_a_row(self._database, steps, following)
        done = await one_by_one(self._database, self._unlocked(items)) if hopeful else None
        if done is None:
            done = await in_transaction(self._database, self._steps(items, hopeful=False))
        self._tell(done.book)
        return done

    def _tell(self, book: Book) -> None:
        if book.outbox:
            self._confirmed([(key[0], event) for key, event in book.outbox.items()])

    def _steps(self, items: Sequence[Item], *, hopeful: bool) -> Steps[_Done]:
        """All of a group under its locks. `hopeful`: an id that is to be opened is taken for a new
        one, unless it is known here; when it is not, the database says so.
        """
        places = {_place(item) for item in items if not isinstance(item, Sent)}
        opened = {item.opening.place for item in items if isinstance(item, Open)}
        memory = self._memory
        begin = yield from mark()
        memory.at(begin)
        unknown = memory.unknown(places)
        accounts = memory.accounts_of(places) | (yield from store.lock(unknown))
        # After the locks: nothing that is decided on can change any more.
        now = to_micros(self._clock())
        rows = memory.bases_of(places) | (yield from store.bases_of(unknown))
        bases = self._tracked(rows)
        missing = [place for place in opened if place not in accounts and place in bases]
        if missing:
            raise _MissingError(missing)
        kept = set(accounts)
        for place in places:
            accounts.setdefault(place, Account(place))
        holds = memory.holds_of(_ids(items))
        doubtful = [item for item in items if not (hopeful and isinstance(item, Open))]
        holds |= yield from store.by_ids(key for key in _ids(doubtful) if key not in holds)
        book = Book(now, self._reading_time(), accounts, holds, bases)
        for account in list(accounts.values()):
            if account.next_expiry is not None and account.next_expiry <= now:
                expired, following = yield from store.due(account.place, now)
                book.expire(expired, following, account.place)
        outcomes = [_decide(book, item) for item in items]
        sent = [one for item in items if isinstance(item, Sent) for one in item.ids]
        yield from store.write(book, sent)
        return _Done(book, outcomes, kept, rows, (yield from mark(begin)))

    def _unlocked(self, items: Sequence[Item]) -> Steps[_Done | None]:
        """The same without locks, as nearly always nobody else is there; None when somebody was.

        On PostgreSQL every statement is a journey, and here are two of them instead of six. What
        is written is written only if the accounts are what they were when they were read: then
        everything that is guarded by their locks is what it was, too. Hopeful as above.
        """
        asked = [item for item in items if isinstance(item, Open | Confirm | Release)]
        if len(asked) < len(items):
            return None
        places = {_place(item) for item in asked}
        seen = yield from store.see(places)
        now = to_micros(self._clock())
        accounts, bases = seen.accounts, self._tracked(seen.bases)
        if any(place not in accounts for place in places):
            return None
        if any(one.next_expiry is not None and one.next_expiry <= now for one in accounts.values()):
            return None
        holds = self._versions.holds_of(
            ((_place(item), key) for item, key in zip(asked, _ids(asked), strict=True)),
            seen.versions,
        )
        closing = [item for item in asked if not isinstance(item, Open)]
        holds |= yield from store.by_ids(key for key in _ids(closing) if key not in holds)
        book = Book(now, self._reading_time(), accounts, holds, bases)
        outcomes = [_decide(book, item) for item in items]
        version = yield from store.write_unless_changed(book, seen.versions)
        if version is None:
            return None
        self._versions.learn(book, seen.versions, version)
        return _Done(book, outcomes, places, seen.bases, None)

    def _tracked(self, bases: Mapping[Place, Basis]) -> dict[Place, Basis]:
        """Those whose rows the sink still follows, and those that need nobody to."""
        return {
            place: basis
            for place, basis in bases.items()
            if basis.row.series is None or self._is_tracked(basis.row.series)
        }


def _decide(book: Book, item: Item) -> Outcome | Exception:
    try:
        match item:
            case Open():
                return book.open(item)
            case Confirm():
                return book.confirm(item)
            case Release():
                return book.release(item)
        return None
    except Exception as error:
        return error


def _place(item: Open | Confirm | Release | Expire) -> Place:
    return item.opening.place if isinstance(item, Open) else item.place


def _ids(items: Sequence[Item]) -> list[tuple[str, str]]:
    ids = []
    for item in items:
        match item:
            case Open():
                ids.append((item.opening.place.namespace, item.opening.id))
            case Confirm() | Release():
                ids.append((item.place.namespace, item.id))
    return ids
