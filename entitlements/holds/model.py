"""What a hold is. Instants are microseconds since 1970, as they are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

import msgspec

from entitlements.balance.exact import ROOM, ZERO

ID_PATTERN = "^[!-.0-~]+$"
"""Of the id of a hold that its caller names: visible ASCII without a slash, for paths."""


class State(StrEnum):
    """Where a hold is. Only an open one can still become another."""

    OPEN = "open"
    CONFIRMED = "confirmed"
    """In full, less, or nothing: `confirmed` says how much."""
    RELEASED = "released"
    EXPIRED = "expired"
    FAILED = "failed"
    """Refused for want of balance. It stays refused, whatever is granted later."""


class OnExcess(StrEnum):
    """What becomes of a confirmation of more than was held."""

    DENY = "deny"
    CHARGE = "charge"
    """The rest is charged at once, and may become overage."""


class Face(StrEnum):
    """The part of the API that a hold was made through."""

    HOLD = "hold"
    RESERVATION = "reservation"
    TRANSACTION = "transaction"


class Place(NamedTuple):
    """Of which balance: a subject's entitlement to a feature, whichever is in force."""

    namespace: str
    subject: str
    feature_key: str


class Opening(msgspec.Struct, frozen=True):
    """A hold to open: what a retry with the same id must say again."""

    id: str
    place: Place
    amount: Decimal
    ttl_seconds: Decimal = ZERO
    """0: it never expires."""
    on_excess: OnExcess = OnExcess.DENY
    face: Face = Face.HOLD
    model: str | None = None
    details: str = "{}"
    """JSON of what else the face keeps."""
    metadata: str = "{}"
    """JSON of the caller's texts, keys in order."""


class Hold(msgspec.Struct, frozen=True):
    """A hold, as it is kept."""

    opening: Opening
    entitlement_id: str
    state: State
    created_at: int
    expires_at: int | None
    closed_at: int | None = None
    """When it was confirmed, released, refused or found to be expired."""
    confirmed: Decimal | None = None
    limit: Decimal | None = None
    """Of a refused one: what there was in all."""
    current: Decimal | None = None
    """Of a refused one: what was used and set aside of it."""
    available: Decimal | None = None
    """What was available just after its last change, as far as that was known."""
    closing: str | None = None
    """JSON of what the face keeps of its end."""
    settled: bool = False
    """Its usage is part of the balance; of one without usage, it is false for ever."""

    @property
    def id(self) -> str:
        return self.opening.id

    @property
    def amount(self) -> Decimal:
        return self.opening.amount

    @property
    def excess(self) -> Decimal:
        """How much more was confirmed than held."""
        return max(ROOM.subtract(self.confirmed or ZERO, self.amount), ZERO)

    @property
    def released(self) -> Decimal:
        """What went back to the balance."""
        if self.state is State.CONFIRMED:
            return max(ROOM.subtract(self.amount, self.confirmed or ZERO), ZERO)
        return self.amount if self.state in (State.RELEASED, State.EXPIRED) else ZERO


@dataclass(frozen=True, slots=True)
class Room:
    """What can be set aside, before any hold: `limit` in all, `used` of it."""

    limit: Decimal
    used: Decimal
    unlimited: bool
    """More may be set aside than there is."""


class Standing(NamedTuple):
    """What is set aside of a balance."""

    held: Decimal
    """By open holds."""
    pending: Decimal
    """Confirmed, and not yet part of metered usage."""


Metadata = Mapping[str, str]
