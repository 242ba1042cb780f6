"""What a group of requests does to holds, decided one after the other. Pure.

A `Book` is made of what the transaction has read under its locks, and collects what it has to
write. Time is microseconds since 1970.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from msgspec.structs import replace

from entitlements.balance.exact import ROOM, ZERO
from entitlements.builtin import CREDITS
from entitlements.events import UsageEvent
from entitlements.holds import machine
from entitlements.holds.model import Hold, Opening, Place, Room, Standing, State
from entitlements.holds.shape import Shape, check_confirmed, event_data
from entitlements.stores.live import LiveRow
from meterline.kernel.errors import NotFoundError, ValidationError
from meterline.kernel.instants import from_micros
from meterline.kernel.usage import HOLD_SOURCE


@dataclass(frozen=True, slots=True)
class Open:
    """Open a hold. `allowance` is the limit of the usage period, instead of the balance."""

    opening: Opening
    allowance: Decimal | None = None
    keep_failure: bool = True
    """A refused hold is kept, so that its id stays refused; needless when nobody knows the id."""


@dataclass(frozen=True, slots=True)
class Confirm:
    """Confirm a hold; `shape` says which event it becomes."""

    place: Place
    id: str
    amount: Decimal | None
    shape: Shape
    closing: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """Give a hold back."""

    place: Place
    id: str
    closing: str | None = None


@dataclass(frozen=True, slots=True)
class Expire:
    """Give back what has expired of a balance."""

    place: Place


@dataclass(frozen=True, slots=True)
class Sent:
    """The events of confirmed holds are durable: they need not be written again."""

    ids: tuple[tuple[str, str], ...]


Item = Open | Confirm | Release | Expire | Sent


_MOST_ROOMS = 16
_SKEW = timedelta(seconds=2)
"""How far the clocks of processes may be apart: usage that is so little ahead counts already."""


class NoRowError(Exception):
    """Without a live row nothing can be decided now; the caller has one made."""


@dataclass(frozen=True, slots=True)
class Basis:
    """A live row that is decided on, and what it was found to have room for.

    The row never changes, and so, unless some of its usage lies ahead, does the room that it
    leaves by an allowance: it is worked out once for all groups that find this row.
    """

    row: LiveRow
    rooms: dict[Decimal | None, Room] = field(default_factory=dict)

    def room(self, now: datetime, allowance: Decimal | None) -> Room:
        """What `room_of` says of the row."""
        if self.row.due:
            return room_of(self.row, now, allowance)
        room = self.rooms.get(allowance)
        if room is None:
            if len(self.rooms) >= _MOST_ROOMS:
                self.rooms.clear()
            room = self.rooms[allowance] = room_of(self.row, now, allowance)
        return room


@dataclass(slots=True)
class Account:
    """What is set aside of one balance, and the end of its history."""

    place: Place
    held: Decimal = ZERO
    pending: Decimal = ZERO
    next_expiry: int | None = None
    """No open hold expires before; one need not expire then."""
    entries: int = 0
    ledger: Decimal = ZERO
    """The sum of the history's entries."""

    @property
    def standing(self) -> Standing:
        return Standing(self.held, self.pending)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a balance's history."""

    place: Place
    number: int
    amount: Decimal
    balance: Decimal
    """The sum of this entry and all before it."""
    kind: str
    at: int
    ref: str
    reason: str = ""


@dataclass(slots=True)
class Book:
    """The holds and balances of a group, and what changes of them."""

    now: int
    reading_time: datetime
    accounts: dict[Place, Account]
    holds: dict[tuple[str, str], Hold]
    bases: Mapping[Place, Basis]
    new: dict[tuple[str, str], Hold] = field(default_factory=dict)
    changed: dict[tuple[str, str], Hold] = field(default_factory=dict)
    outbox: dict[tuple[str, str], UsageEvent] = field(default_factory=dict)
    touched: set[Place] = field(default_factory=set)
    rooms: dict[tuple[Place, Decimal | None], Room] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    def expire(self, due: list[Hold], next_expiry: int | None, place: Place) -> None:
        """Give back open holds whose time has come; no other expires before `next_expiry`."""
        account = self.accounts[place]
        for hold in due:
            self._close(machine.as_of(hold, self.now))
        account.next_expiry = next_expiry
        self.touched.add(place)

    def open(self, item: Open) -> Hold:
        """The hold that is opened, or refused, or was there. `NoRowError` without a live row."""
        opening = item.opening
        key = (opening.place.namespace, opening.id)
        known = self.holds.get(key)
        if known is not None:
            return machine.opened_again(machine.as_of(known, self.now), opening)
        basis = self._basis(opening.place)
        account = self.accounts[opening.place]
        room = self._room(opening.place, basis, item.allowance)
        entitlement = basis.row.entitlement_id
        hold = machine.opened(opening, entitlement, room, account.standing, self.now)
        if hold.state is State.OPEN or item.keep_failure:
            self.holds[key] = self.new[key] = hold
        if hold.state is State.OPEN:
            account.held = ROOM.add(account.held, hold.amount)
            if hold.expires_at is not None:
                account.next_expiry = min(account.next_expiry or hold.expires_at, hold.expires_at)
            self.touched.add(opening.place)
        return hold

    def confirm(self, item: Confirm) -> Hold:
        """The confirmed hold; its amount is pending until its event is part of the usage."""
        before = self._find(item.place, item.id)
        hold = machine.confirmed(before, item.amount, self.now)
        if hold is before:
            return hold
        used = hold.confirmed or ZERO
        check_confirmed(item.shape, used)
        # Whatever can refuse it comes before what it changes.
        event = usage_event(hold, item.shape) if used else None
        account = self.accounts[item.place]
        account.pending = ROOM.add(account.pending, used)
        hold = self._close(replace(hold, closing=item.closing))
        if event is not None:
            self.outbox[item.place.namespace, item.id] = event
            if item.place.feature_key == CREDITS:
                self._enter(account, hold, ROOM.minus(used))
        return hold

    def release(self, item: Release) -> Hold:
        """The released hold."""
        before = self._find(item.place, item.id)
        hold = machine.released(before, self.now)
        return hold if hold is before else self._close(replace(hold, closing=item.closing))

    def _find(self, place: Place, hold_id: str) -> Hold:
        hold = self.holds.get((place.namespace, hold_id))
        if hold is None or hold.opening.place != place:
            raise NotFoundError("there is no such hold")
        return hold

    def _basis(self, place: Place) -> Basis:
        basis = self.bases.get(place)
        if basis is None or not covers(basis.row, self.reading_time):
            raise NoRowError
        if basis.row.state.standing is None:
            raise ValidationError("holds are for metered entitlements: this one has no balance")
        return basis

    def _room(self, place: Place, basis: Basis, allowance: Decimal | None) -> Room:
        """The room of a balance, which holds of the same group do not change."""
        room = self.rooms.get((place, allowance))
        if room is None:
            room = self.rooms[place, allowance] = basis.room(self.reading_time, allowance)
        return room

    def _close(self, hold: Hold) -> Hold:
        """Note a hold that was open and is not any more."""
        place = hold.opening.place
        account = self.accounts[place]
        account.held = ROOM.subtract(account.held, hold.amount)
        basis = self.bases.get(place)
        if basis is not None and has_balance(basis.row, self.reading_time):
            left = available(self._room(place, basis, None), account.standing)
            hold = replace(hold, available=left)
        key = (place.namespace, hold.id)
        self.holds[key] = hold
        (self.new if key in self.new else self.changed)[key] = hold
        self.touched.add(place)
        return hold

    def _enter(self, account: Account, hold: Hold, amount: Decimal) -> None:
        account.entries += 1
        account.ledger = ROOM.add(account.ledger, amount)
        entry = Entry(
            account.place, account.entries, amount, account.ledger, "usage", self.now,
            f"hold:{hold.id}",
        )  # fmt: skip
        self.entries.append(entry)


def covers(row: LiveRow, now: datetime) -> bool:
    """Whether a row answers at an instant."""
    state = row.state
    ended = state.end is not None and now >= state.end
    return now >= state.start and not ended and (state.standing is None or now in state.standing)


def has_balance(row: LiveRow, now: datetime) -> bool:
    """Whether a row answers at an instant, and what it answers is a balance."""
    return row.state.standing is not None and covers(row, now)


def room_of(row: LiveRow, now: datetime, allowance: Decimal | None = None) -> Room:
    """What can be set aside by the row's balance, or by an allowance for the usage period."""
    assert row.state.standing is not None
    balance = row.state.standing.balance(row.usage_at(now + _SKEW), now)
    if allowance is not None:
        return Room(allowance, balance.usage, unlimited=False)
    total = balance.total_available_grant_amount
    used = ROOM.add(ROOM.subtract(total, balance.balance), balance.overage)
    return Room(total, used, unlimited=row.state.is_soft_limit)


def available(room: Room, standing: Standing) -> Decimal:
    """What is left of a room without what is set aside; below zero with overage."""
    return ROOM.subtract(ROOM.subtract(room.limit, room.used), total_of(standing))


def total_of(standing: Standing) -> Decimal:
    """All that is set aside."""
    return ROOM.add(standing.held, standing.pending)


def usage_event(hold: Hold, shape: Shape) -> UsageEvent:
    """The event of a confirmed hold."""
    assert hold.confirmed is not None and hold.closed_at is not None
    data: dict[str, Any] = event_data(shape, hold.confirmed, words_of(hold.opening))
    return UsageEvent(
        hold.id, HOLD_SOURCE, shape.meter.event_type, hold.opening.place.subject,
        from_micros(hold.closed_at), data,
    )  # fmt: skip


def words_of(opening: Opening) -> dict[str, str]:
    """What a hold's event says beside the amount."""
    model = {} if opening.model is None else {"model": opening.model}
    return {**model, "kind": opening.face.value}
