"""Usage transactions: a hold for the tokens that a call may need, closed with what it needed.

A transaction is a hold on the subject's credits whose policy is `charge`: what was used is
charged, whether it was held or not. One that nobody finishes expires and gives its hold back.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from entitlements.balance.exact import ROOM, ZERO
from entitlements.credits.ports import Bans
from entitlements.credits.rates import CreditOptions, Tokens
from entitlements.credits.rating import RateService
from entitlements.credits.service import CreditService
from entitlements.holds.model import Face, Hold, OnExcess, State
from entitlements.holds.service import HoldFilter, HoldRequest, HoldService
from meterline.kernel.errors import ConflictError, NotFoundError


class Status(StrEnum):
    """Where a transaction is."""

    STARTED = "started"
    COMPLETED = "completed"
    FAILED = "failed"
    """Completed without success."""
    REFUSED = "refused"
    """There were not enough credits to start it."""
    EXPIRED = "expired"


_ENDED = {
    State.EXPIRED: "has expired",
    State.FAILED: "was refused for want of credits, and stays so",
}


@dataclass(frozen=True, slots=True)
class Start:
    """A transaction to start."""

    subject: str
    model: str
    provisional: Tokens | None = None
    feature: str | None = None
    metadata: Mapping[str, str] | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction, as a hold tells it."""

    hold: Hold

    @property
    def status(self) -> Status:
        match self.hold.state:
            case State.OPEN:
                return Status.STARTED
            case State.EXPIRED:
                return Status.EXPIRED
            case State.FAILED:
                return Status.REFUSED
            case State.RELEASED:
                return Status.FAILED
        return Status.COMPLETED if self.closing.get("success", True) else Status.FAILED

    @property
    def details(self) -> dict[str, Any]:
        """What was said at its start: `feature`, `provisional`."""
        return dict(json.loads(self.hold.opening.details))

    @property
    def closing(self) -> dict[str, Any]:
        """What was said at its end: `success`, `finalized`."""
        return dict(json.loads(self.hold.closing or "{}"))

    @property
    def credits_used(self) -> Decimal:
        """What it costs: while it is open, what is held for it."""
        if self.hold.state is State.OPEN:
            return self.hold.amount
        return self.hold.confirmed or ZERO

    @property
    def adjustment(self) -> Decimal:
        """What came back of the hold; negative when more was charged."""
        if self.hold.state in (State.OPEN, State.FAILED):
            return ZERO
        return ROOM.subtract(self.hold.amount, self.hold.confirmed or ZERO)


class TransactionService:
    """Starts and completes transactions."""

    def __init__(
        self,
        holds: HoldService,
        credit: CreditService,
        rates: RateService,
        options: CreditOptions,
        bans: Bans,
    ) -> None:
        self._holds = holds
        self._credit = credit
        self._rates = rates
        self._options = options
        self._bans = bans
        self.limits = holds.limits

    async def start(self, namespace: str, wanted: Start) -> Transaction:
        """Hold what the provisional tokens cost. It is `refused` when the credits do not suffice.

        Without provisional tokens nothing is held. With the id of a transaction that is there, it
        is that one, as it is now, whatever became of rates and settings meanwhile;
        `ConflictError` when it was started with other content. A banned subject starts no new one:
        `ForbiddenError`.
        """
        known = await self._known(namespace, wanted)
        if known is not None:
            return known
        banned = await self._bans.refusal(namespace, wanted.subject)
        if banned is not None:
            raise banned
        # Without provisional tokens, too: what cannot be charged at its end must not begin.
        tokens = wanted.provisional or Tokens()
        amount = await self._rates.credits(namespace, wanted.model, tokens, "provisionalTokens")
        place = await self._credit.ensure(namespace, wanted.subject)
        details: dict[str, Any] = {}
        if wanted.feature is not None:
            details["feature"] = wanted.feature
        if wanted.provisional is not None:
            details["provisional"] = _tokens(wanted.provisional)
        asked = HoldRequest(
            place,
            amount,
            wanted.id,
            self._options.transaction_ttl_seconds,
            OnExcess.CHARGE,
            wanted.metadata,
            face=Face.TRANSACTION,
            model=wanted.model,
            details=_text(details),
        )
        try:
            hold = await self._credit.still_there(place, lambda: self._holds.request(asked))
            return Transaction(hold)
        except ConflictError:
            # Somebody was quicker with the id, perhaps at another rate.
            known = await self._known(namespace, wanted)
            if known is None:
                raise
            return known

    async def _known(self, namespace: str, wanted: Start) -> Transaction | None:
        """The transaction that has the id, if one has; `ConflictError` when it is another one."""
        hold = None if wanted.id is None else await self._holds.find(namespace, wanted.id)
        return None if hold is None else _the_same(hold, wanted)

    async def complete(
        self, namespace: str, transaction_id: str, *, success: bool, finalized: Tokens | None
    ) -> Transaction:
        """Charge the final tokens, and give the rest of the hold back.

        Without final tokens all that was held is charged after a success, and nothing else.
        """
        hold = (await self.get(namespace, transaction_id)).hold
        said: dict[str, Any] = {"success": success}
        if finalized is not None:
            said["finalized"] = _tokens(finalized)
        closing = _text(said)
        if hold.state is not State.OPEN:
            return _again(hold, closing)
        amount = None
        if finalized is not None:
            model = hold.opening.model or ""
            amount = await self._rates.credits(namespace, model, finalized, "finalizedTokens")
        place = hold.opening.place
        try:
            if finalized is None and not success:
                hold = await self._holds.release(
                    namespace, transaction_id, place=place, closing=closing
                )
            else:
                hold = await self._holds.confirm(
                    namespace, transaction_id, amount, place=place, closing=closing
                )
        except ConflictError:
            # Somebody was quicker to close it: perhaps the same request, at another rate.
            hold = (await self.get(namespace, transaction_id)).hold
            if hold.state is State.OPEN:
                raise
        return _again(hold, closing)

    async def get(self, namespace: str, transaction_id: str) -> Transaction:
        """A transaction, or `NotFoundError`."""
        hold = await self._holds.get(namespace, transaction_id)
        if hold.opening.face is not Face.TRANSACTION:
            raise NotFoundError("there is no such transaction")
        return Transaction(hold)

    async def list(self, namespace: str, wanted: HoldFilter, limit: int) -> Sequence[Transaction]:
        """Transactions, the newest first."""
        return [Transaction(one) for one in await self._holds.list(namespace, wanted, limit)]

    async def left(self, transaction: Transaction) -> Decimal:
        """What was available just after its last change; what is now, after it has expired."""
        hold = transaction.hold
        # That its hold was given back may not be written yet.
        if hold.available is not None and hold.state is not State.EXPIRED:
            return hold.available
        place = hold.opening.place
        try:
            return (await self._credit.balance(place.namespace, place.subject)).available
        except NotFoundError:
            return ZERO


def _the_same(hold: Hold, wanted: Start) -> Transaction:
    """The transaction, when the caller said the same at its start; else the conflict."""
    if hold.opening.face is not Face.TRANSACTION:
        raise _other("the id belongs to a hold that is no transaction", "transactionId", hold)
    one, opening, tokens = Transaction(hold), hold.opening, wanted.provisional
    again_tokens = None if tokens is None else _tokens(tokens)
    pairs = (
        ("userId", opening.place.subject, wanted.subject),
        ("model", opening.model, wanted.model),
        ("provisionalTokens", one.details.get("provisional"), again_tokens),
        ("featureIdentifier", one.details.get("feature"), wanted.feature),
        ("metadata", json.loads(opening.metadata), dict(wanted.metadata or {})),
    )
    for field, first, again in pairs:
        if first != again:
            raise _other(f"the id belongs to a transaction with another {field}", field, hold)
    return one


def _again(hold: Hold, closing: str) -> Transaction:
    """The transaction, when it was completed as is asked; else the conflict."""
    if hold.state in _ENDED:
        raise _other(f"the transaction {_ENDED[hold.state]}: use a new id", "state", hold)
    if hold.closing != closing:
        before, after = json.loads(hold.closing or "{}"), json.loads(closing)
        field = "success" if before.get("success") != after.get("success") else "finalizedTokens"
        raise _other(f"the transaction was completed with another {field}", field, hold)
    return Transaction(hold)


def _other(detail: str, field: str, hold: Hold) -> ConflictError:
    state = hold.state.value
    return ConflictError(
        detail, extensions={"field": field, "transactionId": hold.id, "state": state}
    )


def _tokens(tokens: Tokens) -> dict[str, int]:
    told = {"inputTokens": tokens.input, "outputTokens": tokens.output}
    return {**told, "cachedTokens": tokens.cached} if tokens.cached else told


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
