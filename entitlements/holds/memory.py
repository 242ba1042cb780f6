"""What a process knows of balances and holds, for as long as nobody else writes anything.

A transaction that finds the mark of the one before (`meterline.db.steps.Mark`) need not read what
that one has read or written. Any other write, by whomever and of whatever, ends that.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from entitlements.holds.book import Account, Basis, Book
from entitlements.holds.model import Hold, Place, State
from meterline.db.steps import Row

_MOST = 20_000
"""Balances, and open holds, of some hundred bytes each."""

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
