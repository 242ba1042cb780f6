"""Credits, holds, reservations, and usage transactions."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from meterline_sdk import _json
from meterline_sdk._async._resource import AsyncResource
from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk.models import CompletedTransaction, Hold, StartedTransaction

Amount = Decimal | int


class AsyncHolds(AsyncResource):
    """`/api/v1/subjects/{subject}/entitlements/{key}/holds`: amounts set aside."""

    async def open(
        self,
        subject: str,
        feature_key: str,
        amount: Amount,
        *,
        id: str | None = None,
        ttl_seconds: int | None = None,
        on_excess: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> Hold:
        """Set an amount aside. Raises `UsageLimitError` when there is not that much.

        `on_excess` says what confirming more than was held does: `deny` or `charge`.
        """
        asked = body(
            id=id, amount=amount, ttl_seconds=ttl_seconds, on_excess=on_excess, metadata=metadata
        )
        return _json.read(Hold, await self._move(_holds(subject, feature_key), asked, key=id))

    async def list(self, subject: str, feature_key: str, **filters: Any) -> Sequence[Hold]:
        """The holds of an entitlement."""
        found = await self._get(_holds(subject, feature_key), **filters)
        return [_json.read(Hold, one) for one in _items(found)]

    async def get(self, subject: str, feature_key: str, id: str) -> Hold:
        """One hold."""
        return _json.read(Hold, await self._get(_holds(subject, feature_key, id)))

    async def confirm(
        self, subject: str, feature_key: str, id: str, amount: Amount | None = None
    ) -> Hold:
        """Use what was held: all of it, or `amount`. The rest is given back."""
        path = _holds(subject, feature_key, id, "confirm")
        return _json.read(Hold, await self._move(path, body(amount=amount), key=f"{id}-confirm"))

    async def release(self, subject: str, feature_key: str, id: str) -> Hold:
        """Give back what was held."""
        path = _holds(subject, feature_key, id, "release")
        return _json.read(Hold, await self._move(path, key=f"{id}-release"))


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
        idempotency_key: str | None = None,
    ) -> Mapping[str, Any]:
        """Give a subject credits."""
        asked = body(amount=amount, reason=reason, priority=priority, expires_at=expires_at)
        path = f"/api/v1/subjects/{segment(subject)}/credits"
        made: Mapping[str, Any] = await self._move(path, asked, key=idempotency_key)
        return made

    async def get(self, subject: str, **parameters: Any) -> Mapping[str, Any]:
        """The balance, and how it came about."""
        path = f"/api/v1/subjects/{segment(subject)}/credits"
        found: Mapping[str, Any] = await self._get(path, **parameters)
        return found


class AsyncTransactions(AsyncResource):
    """`/api/v1/usage-transactions`: credits around one call of a model."""

    async def start(
        self,
        user_id: str,
        model: str,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        feature_identifier: str | None = None,
        idempotency_key: str | None = None,
    ) -> StartedTransaction:
        """Set credits aside for what is expected to be used."""
        tokens = body(input_tokens=input_tokens, output_tokens=output_tokens)
        asked = body(
            user_id=user_id,
            model=model,
            provisional_tokens=tokens or None,
            feature_identifier=feature_identifier,
        )
        made = await self._move("/api/v1/usage-transactions", asked, key=idempotency_key)
        return _json.read(StartedTransaction, made)

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
        done = await self._move(path, asked, key=f"{transaction_id}-complete")
        return _json.read(CompletedTransaction, done)

    async def get(self, transaction_id: str) -> Mapping[str, Any]:
        """One transaction."""
        path = f"/api/v1/usage-transactions/{segment(transaction_id)}"
        found: Mapping[str, Any] = await self._get(path)
        return found

    async def list(self, **filters: Any) -> Sequence[Mapping[str, Any]]:
        """Transactions, newest first."""
        return _items(await self._get("/api/v1/usage-transactions", **filters))


class AsyncReservations(AsyncResource):
    """`/api/v1/reservations`: holds by the names that other products give them."""

    async def create(
        self, *, idempotency_key: str | None = None, **terms: Any
    ) -> Mapping[str, Any]:
        """Reserve an amount; the answer has `transactionId` and `accountId`."""
        path = "/api/v1/reservations"
        made: Mapping[str, Any] = await self._move(path, body(**terms), key=idempotency_key)
        return made

    async def get(self, id: str) -> Mapping[str, Any]:
        """One reservation."""
        found: Mapping[str, Any] = await self._get(f"/api/v1/reservations/{segment(id)}")
        return found

    async def confirm(self, id: str, **terms: Any) -> Mapping[str, Any]:
        """Use what was reserved."""
        path = f"/api/v1/reservations/{segment(id)}/confirm"
        done: Mapping[str, Any] = await self._move(path, body(**terms), key=f"{id}-confirm")
        return done

    async def release(self, id: str) -> Mapping[str, Any]:
        """Give back what was reserved."""
        path = f"/api/v1/reservations/{segment(id)}/release"
        done: Mapping[str, Any] = await self._move(path, key=f"{id}-release")
        return done


def _holds(subject: str, feature_key: str, *rest: str) -> str:
    path = f"/api/v1/subjects/{segment(subject)}/entitlements/{segment(feature_key)}/holds"
    return "/".join([path, *map(segment, rest)])


def _items(found: Any) -> Sequence[Any]:
    """A page's items, or a plain list."""
    items: Sequence[Any] = found.get("items", ()) if isinstance(found, Mapping) else found
    return items
