"""Groups of requests about holds: one transaction each, in the order in which they came."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from entitlements.events import UsageEvent
from entitlements.holds import store
from entitlements.holds.book import Account, Basis, Book, Confirm, Expire, Item, Open, Release, Sent
from entitlements.holds.memory import Memory
from entitlements.holds.model import Hold, Place
from meterline.db.engine import Database
from meterline.db.steps import CollisionError, Mark, Row, Steps, in_transaction
from meterline.kernel.errors import UnavailableError
from meterline.kernel.instants import to_micros

Outcome = Hold | None
_TRIES = 5


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

    async def commit(self, items: Sequence[Item]) -> Sequence[Outcome | Exception]:
        """The outcomes, in the order of the items."""
        for _ in range(_TRIES):
            try:
                done = await in_transaction(self._database, self._steps(items))
            except _MissingError as missing:
                async with self._database.transaction() as conn:
                    await store.create(conn, missing.places)
            except CollisionError:
                # Another process has opened a hold of the same id: now it can be read.
                continue
            except BaseException:
                self._memory.forget()
                raise
            else:
                book = done.book
                if done.mark is not None:
                    self._memory.learn(book, done.kept, done.bases, done.mark)
                if book.outbox:
                    self._confirmed([(key[0], event) for key, event in book.outbox.items()])
                return done.outcomes
        raise UnavailableError("holds change too quickly to decide")

    def _steps(self, items: Sequence[Item]) -> Steps["_Done"]:
        places = {_place(item) for item in items if not isinstance(item, Sent)}
        opened = {item.opening.place for item in items if isinstance(item, Open)}
        memory, found = self._memory, (yield Mark())
        memory.at(found[0] if found else None)
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
        ids = _ids(items)
        holds = memory.holds_of(ids)
        holds |= yield from store.by_ids(key for key in ids if key not in holds)
        book = Book(now, self._reading_time(), accounts, holds, bases)
        for account in list(accounts.values()):
            if account.next_expiry is not None and account.next_expiry <= now:
                expired, following = yield from store.due(account.place, now)
                book.expire(expired, following, account.place)
        outcomes = [_decide(book, item) for item in items]
        sent = [one for item in items if isinstance(item, Sent) for one in item.ids]
        yield from store.write(book, sent)
        marks = yield Mark()
        return _Done(book, outcomes, kept, rows, marks[0] if marks else None)

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
