"""CreditBalance, reservations, usage transactions."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from meterline_sdk.models._common import Extra


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditEntry:
    """A line of a balance's history. The sum of all amounts is the balance."""

    number: int
    kind: str
    amount: Decimal
    balance: Decimal
    at: datetime | None = None
    reference: str | None = None
    reason: str | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditBalance:
    """A subject's credits. `grant_id` and `amount` answer to giving some, `items` to asking."""

    subject_key: str
    balance: Decimal
    held: Decimal
    available: Decimal
    entry_count: int = 0
    as_of: datetime | None = None
    items: list[CreditEntry] = field(default_factory=list)
    next_cursor: str | None = None
    grant_id: str | None = None
    amount: Decimal | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditRate:
    """What a million tokens of a model cost, in credits."""

    model: str
    input_rate: Decimal
    output_rate: Decimal
    cached_rate: Decimal | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """CreditBalance set aside for an account."""

    transaction_id: str
    account_id: str
    amount: Decimal
    status: str
    confirmed_amount: Decimal | None = None
    excess_amount: Decimal | None = None
    released_amount: Decimal | None = None
    description: str | None = None
    model: str | None = None
    metadata: dict[str, str] | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    closed_at: datetime | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartedTransaction:
    """The answer to the start of a usage transaction. Go on only if `continue_` is true."""

    transaction_id: str
    continue_: bool
    balance: Decimal | None = None
    credits_used: Decimal | None = None
    message: str | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedTransaction:
    """The answer to the end of a usage transaction."""

    transaction_id: str | None = None
    credits_used: Decimal | None = None
    balance: Decimal | None = None
    balance_adjustment: Decimal | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionTokens:
    """Tokens of a transaction."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    extra: Extra = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """A usage transaction: `started`, `completed`, `failed`, `refused` or `expired`."""

    transaction_id: str
    user_id: str
    model: str
    status: str
    feature_identifier: str | None = None
    provisional_tokens: TransactionTokens | None = None
    finalized_tokens: TransactionTokens | None = None
    provisional_credits: Decimal | None = None
    credits_used: Decimal | None = None
    balance_adjustment: Decimal | None = None
    metadata: dict[str, str] | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    completed_at: datetime | None = None
    extra: Extra = field(default_factory=dict)
