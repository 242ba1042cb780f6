"""Bodies and answers of credits, reservations and transactions."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from entitlements.api.exact import Amount, PositiveAmount
from entitlements.api.views import Number, Time
from entitlements.api.wire import Instant, Metadata, Text
from entitlements.credits.rates import Rate, Tokens
from entitlements.credits.service import CreditBalance
from entitlements.credits.transactions import Transaction
from entitlements.holds.book import Entry
from entitlements.holds.model import Hold, OnExcess
from entitlements.holds.wire import HoldId, Wire, hold_json, instant, number
from meterline.kernel.instants import format_instant

_MAX_TOKENS = 10**15
Json = dict[str, Any]


class CreditsBody(Wire):
    """Credits to give."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": 100}]})

    amount: PositiveAmount
    priority: StrictInt = Field(1, ge=0, le=255, description="Lower numbers burn first.")
    expires_at: Instant | None = Field(None, description="Without, they never expire.")
    reason: Text | None = Field(None, min_length=1, max_length=1024)
    metadata: Metadata | None = None


class CreditsView(BaseModel):
    """What a subject has."""

    subjectKey: str
    balance: Number = Field(description="The sum of the history's entries.")
    held: Number
    available: Number
    entryCount: int
    asOf: Time


class CreditGrantView(CreditsView):
    """Credits that were given, and what the subject has now."""

    grantId: str
    amount: Number


class EntryView(BaseModel):
    """One line of a history."""

    number: int
    kind: Literal["grant", "usage", "expiry", "refill", "reset", "correction"]
    amount: Number
    balance: Number = Field(description="After it.")
    at: Time
    reference: str
    reason: str | None = None


class HistoryPage(CreditsView):
    """The balance, and its history, the newest first."""

    items: list[EntryView]
    nextCursor: str | None = None


class ReservationBody(Wire):
    """Credits to reserve."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"accountId": "customer-1", "amount": 5}]}
    )

    account_id: Text = Field(min_length=1, max_length=2048, description="The subject.")
    amount: PositiveAmount
    id: HoldId | None = None
    ttl_seconds: Amount | None = Field(None, description="0 never expires.")
    on_excess: OnExcess = OnExcess.DENY
    model: Text | None = Field(None, min_length=1, max_length=256)
    description: Text | None = Field(None, max_length=1024)
    metadata: Metadata | None = None


class ReservationView(BaseModel):
    """A reservation."""

    transactionId: str
    accountId: str
    amount: Number
    status: Literal["open", "confirmed", "released", "expired", "failed"]
    confirmedAmount: Number | None = None
    excessAmount: Number | None = None
    releasedAmount: Number | None = None
    createdAt: Time
    expiresAt: Time | None = None
    closedAt: Time | None = None
    description: str | None = None
    model: str | None = None
    metadata: dict[str, str]


class ReservationPage(BaseModel):
    """Some reservations."""

    items: list[ReservationView]
    nextCursor: str | None = None


class TokensBody(Wire):
    """Tokens of a call."""

    input_tokens: StrictInt = Field(0, ge=0, le=_MAX_TOKENS, description="Cached ones included.")
    output_tokens: StrictInt = Field(0, ge=0, le=_MAX_TOKENS)
    cached_tokens: StrictInt = Field(0, ge=0, le=_MAX_TOKENS)

    def tokens(self) -> Tokens:
        """The meaning."""
        return Tokens(self.input_tokens, self.output_tokens, self.cached_tokens)


class StartBody(Wire):
    """A transaction to start."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "userId": "customer-1",
                    "model": "gpt-4o",
                    "provisionalTokens": {"inputTokens": 10},
                }
            ]
        }
    )

    user_id: Text = Field(min_length=1, max_length=2048, description="The subject.")
    model: Text = Field(min_length=1, max_length=256)
    provisional_tokens: TokensBody | None = Field(
        None, description="What the call may need: so much is held."
    )
    feature_identifier: Text | None = Field(None, min_length=1, max_length=256)
    transaction_id: HoldId | None = None
    metadata: Metadata | None = None


class StartedView(BaseModel):
    """Whether the call may be made."""

    transactionId: str
    may_continue: bool = Field(alias="continue")
    balance: Number
    creditsUsed: Number
    message: str


class CompleteBody(Wire):
    """How a transaction ended."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"success": True, "finalizedTokens": {"inputTokens": 8}}]}
    )

    success: StrictBool
    finalized_tokens: TokensBody | None = Field(
        None, description="Without, what was held is charged after a success, else nothing."
    )


class CompletedView(BaseModel):
    """What a transaction cost."""

    transactionId: str
    creditsUsed: Number
    balance: Number
    balanceAdjustment: Number = Field(
        description="What came back of the hold; negative when more was charged."
    )


class TransactionView(BaseModel):
    """A transaction."""

    transactionId: str
    userId: str
    model: str
    status: Literal["started", "completed", "failed", "refused", "expired"]
    featureIdentifier: str | None = None
    provisionalTokens: dict[str, int] | None = None
    finalizedTokens: dict[str, int] | None = None
    provisionalCredits: Number
    creditsUsed: Number
    balanceAdjustment: Number
    createdAt: Time
    expiresAt: Time | None = None
    completedAt: Time | None = None
    metadata: dict[str, str]


class TransactionPage(BaseModel):
    """Some transactions."""

    items: list[TransactionView]
    nextCursor: str | None = None


class RateBody(Wire):
    """Credits for a million tokens each."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "gpt-4o", "inputRate": 2.5, "outputRate": 10}]}
    )

    model: Text = Field(min_length=1, max_length=256)
    input_rate: Amount
    output_rate: Amount
    cached_rate: Amount | None = Field(None, description="The input's rate if absent.")

    def rate(self) -> Rate:
        """The meaning."""
        cached = self.input_rate if self.cached_rate is None else self.cached_rate
        return Rate(self.model, self.input_rate, self.output_rate, cached)


class CreditRateView(BaseModel):
    """Credits for a million tokens each."""

    model: str
    inputRate: Number
    outputRate: Number
    cachedRate: Number


class RatePage(BaseModel):
    """Some rates."""

    items: list[CreditRateView]
    nextCursor: str | None = None


def credits_json(subject: str, balance: CreditBalance) -> Json:
    """A balance of credits."""
    return {
        "subjectKey": subject,
        "balance": number(balance.balance),
        "held": number(balance.held),
        "available": number(balance.available),
        "entryCount": balance.entries,
        "asOf": format_instant(balance.as_of),
    }


def entry_json(one: Entry) -> Json:
    """A line of a history."""
    told: Json = {
        "number": one.number,
        "kind": str(one.kind),
        "amount": number(one.amount),
        "balance": number(one.balance),
        "at": instant(one.at),
        "reference": one.ref,
    }
    return {**told, "reason": one.reason} if one.reason else told


def reservation_json(hold: Hold, description: str | None) -> Json:
    """A reservation, as a hold tells it."""
    told = hold_json(hold)
    answer: Json = {"transactionId": told["id"], "accountId": told["subjectKey"]}
    for name in (
        "amount", "status", "confirmedAmount", "excessAmount", "releasedAmount", "createdAt",
        "expiresAt", "closedAt", "model", "metadata",
    ):  # fmt: skip
        if name in told:
            answer[name] = told[name]
    return {**answer, "description": description} if description is not None else answer


def transaction_json(one: Transaction) -> Json:
    """A transaction."""
    hold, details, closing = one.hold, one.details, one.closing
    told = hold_json(hold)
    answer: Json = {
        "transactionId": hold.id,
        "userId": hold.opening.place.subject,
        "model": hold.opening.model,
        "status": one.status.value,
        "provisionalCredits": number(hold.amount),
        "creditsUsed": number(one.credits_used),
        "balanceAdjustment": number(one.adjustment),
        "createdAt": told["createdAt"],
        "metadata": told["metadata"],
    }
    optional = (
        ("featureIdentifier", details.get("feature")),
        ("provisionalTokens", details.get("provisional")),
        ("finalizedTokens", closing.get("finalized")),
        ("expiresAt", told.get("expiresAt")),
        ("completedAt", told.get("closedAt")),
    )
    return {**answer, **{name: value for name, value in optional if value is not None}}


def rate_json(rate: Rate) -> Json:
    """A rate."""
    return {
        "model": rate.model,
        "inputRate": number(rate.input),
        "outputRate": number(rate.output),
        "cachedRate": number(rate.cached),
    }
