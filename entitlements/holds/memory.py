"""What a process knows of balances and holds, for as long as nobody else writes anything.

A transaction that finds the mark of the one before (`meterline.db.steps.Mark`) need not read what
that one has read or written. Any other write, by whomever and of whatever, ends that.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from entitlements.holds.book import Account, Basis, Book
from entitlements.holds.model import Hold, Place, State
from meterline.db.steps import Row

_MOST = 5_000
"""Balances, of a few KiB each, and open holds."""

Key = tuple[str, str]
"""Namespace and id of a hold."""


@dataclass(slots=True)
class Memory:
    """Accounts and live rows (None: there is none), and open holds."""

    mark: Row | None = None
    accounts: dict[Place, Account | None] = field(default_factory=dict)
    bases: dict[Place, Basis | None] = field(default_factory=dict)
    holds: dict[Key, Hold] = field(default_factory=dict)

    def at(self, mark: Row | None) -> None:
        """Forget everything, unless this is the mark of what is known."""
        if mark is None or mark != self.mark:
            self.forget()

    def forget(self) -> None:
        """Know nothing."""
        self.mark = None
        self.accounts, self.bases, self.holds = {}, {}, {}

    def unknown(self, places: Iterable[Place]) -> list[Place]:
        """The balances that must be read."""
        return [place for place in places if place not in self.accounts]

    def accounts_of(self, places: Iterable[Place]) -> dict[Place, Account]:
        """Copies of the accounts that are known: who is refused a commit has changed nothing."""
        known = ((place, self.accounts.get(place)) for place in places)
        return {place: replace(account) for place, account in known if account is not None}

    def bases_of(self, places: Iterable[Place]) -> dict[Place, Basis]:
        """The live rows that are known."""
        known = ((place, self.bases.get(place)) for place in places)
        return {place: basis for place, basis in known if basis is not None}

    def holds_of(self, ids: Iterable[Key]) -> dict[Key, Hold]:
        """The open holds that are known."""
        return {key: self.holds[key] for key in ids if key in self.holds}

    def learn(
        self, book: Book, kept: Collection[Place], bases: Mapping[Place, Basis], mark: Row
    ) -> None:
        """What a transaction has read and written, once it is committed; its mark at the end.

        `kept` are the places whose accounts are in the database; a book makes up the others.
        """
        if len(self.accounts) > _MOST or len(self.holds) > _MOST:
            self.forget()
        self.mark = mark
        for place, account in book.accounts.items():
            self.accounts[place] = account if place in kept else None
            self.bases[place] = bases.get(place)
        for key, hold in book.new.items():
            if hold.state is State.OPEN:
                self.holds[key] = hold
        for key in book.changed:
            self.holds.pop(key, None)


@dataclass(slots=True)
class Versions:
    """Open holds of balances, each set good for one version of the balance's account.

    Whoever changes a hold of a balance changes its account.
    """

    known: dict[Place, tuple[str, dict[Key, Hold]]] = field(default_factory=dict)
    count: int = 0

    def holds_of(
        self, ids: Iterable[tuple[Place, Key]], versions: Mapping[Place, str]
    ) -> dict[Key, Hold]:
        """The open holds that are known of balances whose accounts have these versions."""
        holds: dict[Key, Hold] = {}
        for place, key in ids:
            version, known = self.known.get(place, ("", {}))
            if key in known and version == versions[place]:
                holds[key] = known[key]
        return holds

    def learn(self, book: Book, before: Mapping[Place, str], version: str) -> None:
        """What was written: accounts that had one version have another one now."""
        if self.count > _MOST or len(self.known) > _MOST:
            self.known, self.count = {}, 0
        for place in book.touched:
            found = self.known.get(place)
            if found is not None and found[0] != before[place]:
                self.count -= len(found[1])
                found = None
            self.known[place] = (version, {} if found is None else found[1])
        for key, hold in book.new.items():
            if hold.state is State.OPEN:
                self.known[hold.opening.place][1][key] = hold
                self.count += 1
        for key, hold in book.changed.items():
            if self.known[hold.opening.place][1].pop(key, None) is not None:
                self.count -= 1
