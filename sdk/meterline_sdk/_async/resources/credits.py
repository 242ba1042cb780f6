"""Credits, holds, reservations, usage transactions, and what tokens cost in credits."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

from meterline_sdk._async._resource import AsyncResource
from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk.models import (
    CompletedTransaction,
    CreditBalance,
    CreditEntry,
    CreditRate,
    Hold,
    Page,
    Reservation,
    StartedTransaction,
    Transaction,
)

Amount = Decimal | int
Texts = Mapping[str, str]


class AsyncHolds(AsyncResource):
    """`/api/v1/subjects/{subject}/entitlements/{key}/holds`: amounts set aside."""

    async def open(
        self,
        subject: str,
        feature_key: str,
        amount: Amount,
        *,
        id: str | None = None,
        ttl_seconds: Amount | None = None,
        on_excess: str | None = None,
        model: str | None = None,
        metadata: Texts | None = None,
    ) -> Hold:
        """Set an amount aside. Raises `UsageLimitError` when there is not that much.

        `on_excess` says what confirming more than was held does: `deny` or `charge`.
        """
        asked = body(
            id=id,
            amount=amount,
            ttl_seconds=ttl_seconds,
            on_excess=on_excess,
            model=model,
            metadata=metadata,
        )
        return await self._make(Hold, _holds(subject, feature_key), asked)

    async def list(self, subject: str, feature_key: str, **filters: Any) -> Page[Hold]:
        """The holds of an entitlement, newest first: `status`, `limit`, `cursor`."""
        return await self._page(Hold, _holds(subject, feature_key), **filters)

    async def get(self, subject: str, feature_key: str, id: str) -> Hold:
        """One hold."""
        return await self._get(Hold, _holds(subject, feature_key, id))

    async def confirm(
        self, subject: str, feature_key: str, id: str, amount: Amount | None = None
    ) -> Hold:
        """Use what was held: all of it, or `amount`. The rest is given back."""
        path = _holds(subject, feature_key, id, "confirm")
        return await self._make(Hold, path, body(amount=amount))

    async def release(self, subject: str, feature_key: str, id: str) -> Hold:
        """Give back what was held."""
        return await self._make(Hold, _holds(subject, feature_key, id, "release"))


class AsyncCredits(AsyncResource):
    """`/api/v1/subjects/{key}/credits`."""

    async def add(
        self,
        subject: str,
        amount: Amount,
        *,
        reason: str | None = None,
        priority: int | None = None,
        expires_at: datetime | None = None,
        metadata: Texts | None = None,
        idempotency_key: str | None = None,
    ) -> CreditBalance:
        """Give a subject credits."""
        asked = body(
            amount=amount,
            reason=reason,
            priority=priority,
            expires_at=expires_at,
            metadata=metadata,
        )
        return await self._make(CreditBalance, _credits(subject), asked, key=idempotency_key)

    async def get(self, subject: str) -> CreditBalance:
        """The balance, and the newest entries of its history."""
        return await self._get(CreditBalance, _credits(subject))

    async def history(
        self, subject: str, *, limit: int | None = None, cursor: str | None = None
    ) -> Page[CreditEntry]:
        """How the balance came about, newest first. The sum of all entries is the balance."""
        return await self._page(CreditEntry, _credits(subject), limit=limit, cursor=cursor)


class AsyncTransactions(AsyncResource):
    """`/api/v1/usage-transactions`: credits around one call of a model."""

    async def start(
        self,
        user_id: str,
        model: str,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        feature_identifier: str | None = None,
        metadata: Texts | None = None,
        idempotency_key: str | None = None,
    ) -> StartedTransaction:
        """Set credits aside for what is expected to be used."""
        tokens = body(
            input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached_tokens
        )
        asked = body(
            user_id=user_id,
            model=model,
            provisional_tokens=tokens or None,
            feature_identifier=feature_identifier,
            metadata=metadata,
        )
        path = "/api/v1/usage-transactions"
        return await self._make(StartedTransaction, path, asked, key=idempotency_key)

    async def complete(
        self,
        transaction_id: str,
        *,
        success: bool = True,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
    ) -> CompletedTransaction:
        """Charge what was used; a failed call (`success=False`) gives everything back."""
        tokens = body(
            input_tokens=input_tokens, output_tokens=output_tokens, cached_tokens=cached_tokens
        )
        path = f"/api/v1/usage-transactions/{segment(transaction_id)}/complete"
        asked = body(success=success, finalized_tokens=tokens or None)
        return await self._make(CompletedTransaction, path, asked)

    async def get(self, transaction_id: str) -> Transaction:
        """One transaction."""
        return await self._get(Transaction, f"/api/v1/usage-transactions/{segment(transaction_id)}")

    async def list(self, **filters: Any) -> Page[Transaction]:
        """Transactions, newest first: `user_id`, `model`, `status`, `from_`, `to`, `limit`."""
        return await self._page(Transaction, "/api/v1/usage-transactions", **filters)


class AsyncReservations(AsyncResource):
    """`/api/v1/reservations`: holds of credits by the names that other products give them."""

    async def create(
        self,
        account_id: str,
        amount: Amount,
        *,
        id: str | None = None,
        ttl_seconds: Amount | None = None,
        on_excess: str | None = None,
        model: str | None = None,
        description: str | None = None,
        metadata: Texts | None = None,
        idempotency_key: str | None = None,
    ) -> Reservation:
        """Reserve an amount; raises `UsageLimitError` when there is not that much."""
        asked = body(
            account_id=account_id,
            amount=amount,
            id=id,
            ttl_seconds=ttl_seconds,
            on_excess=on_excess,
            model=model,
            description=description,
            metadata=metadata,
        )
        return await self._make(Reservation, _reservation(), asked, key=idempotency_key)

    async def list(self, **filters: Any) -> Page[Reservation]:
        """Reservations, newest first: `account_id`, `status`, `limit`, `cursor`."""
        return await self._page(Reservation, _reservation(), **filters)

    async def get(self, transaction_id: str) -> Reservation:
        """One reservation."""
        return await self._get(Reservation, _reservation(transaction_id))

    async def confirm(self, transaction_id: str, amount: Amount | None = None) -> Reservation:
        """Use what was reserved: all of it, or `amount`. The rest is given back."""
        path = _reservation(transaction_id, "confirm")
        return await self._make(Reservation, path, body(amount=amount))

    async def release(self, transaction_id: str) -> Reservation:
        """Give back what was reserved."""
        return await self._make(Reservation, _reservation(transaction_id, "release"))


class AsyncCreditRates(AsyncResource):
    """`/api/v1/credit-rates`: what a million tokens of a model cost, in credits."""

    async def create(
        self,
        model: str,
        input_rate: Amount,
        output_rate: Amount,
        *,
        cached_rate: Amount | None = None,
    ) -> CreditRate:
        """Set a model's rate; cached tokens cost what others do unless it is said."""
        return await self._make(
            CreditRate, _rate(), _rates(model, input_rate, output_rate, cached_rate)
        )

    async def list(self, **filters: Any) -> Page[CreditRate]:
        """All rates: `limit`, `cursor`."""
        return await self._page(CreditRate, _rate(), **filters)

    async def get(self, model: str) -> CreditRate:
        """A model's rate."""
        return await self._get(CreditRate, _rate(model))

    async def replace(
        self,
        model: str,
        input_rate: Amount,
        output_rate: Amount,
        *,
        cached_rate: Amount | None = None,
    ) -> CreditRate:
        """Set a model's rate, or change it."""
        asked = _rates(model, input_rate, output_rate, cached_rate)
        return await self._change(CreditRate, "PUT", _rate(model), asked)

    async def delete(self, model: str) -> None:
        """Forget a rate: then the model's price counts."""
        await self._delete(_rate(model))


def _rates(model: str, given: Amount, taken: Amount, cached: Amount | None) -> dict[str, Any]:
    return body(model=model, input_rate=given, output_rate=taken, cached_rate=cached)


def _holds(subject: str, feature_key: str, *rest: str) -> str:
    path = f"/api/v1/subjects/{segment(subject)}/entitlements/{segment(feature_key)}/holds"
    return "/".join([path, *map(segment, rest)])


def _credits(subject: str) -> str:
    return f"/api/v1/subjects/{segment(subject)}/credits"


def _reservation(*rest: str) -> str:
    return "/".join(["/api/v1/reservations", *map(segment, rest)])


def _rate(*rest: str) -> str:
    return "/".join(["/api/v1/credit-rates", *map(segment, rest)])
