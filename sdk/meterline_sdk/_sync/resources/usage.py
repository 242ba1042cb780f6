# Written by sdk/unasync.py from _async/resources/usage.py: change that file.
"""Records of model calls, and prices."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from meterline_sdk import _json
from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk._sync._resource import Resource
from meterline_sdk.models import (
    Cost,
    Model,
    Page,
    Price,
    TrackedSummary,
    UsageRecord,
    UsageSummary,
)


class Usage(Resource):
    """`/api/v1/usage` and `/api/v1/track`."""

    def record(
        self,
        model_id: str,
        *,
        context: str = "system",
        account_id: str | None = None,
        transaction_id: str | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        id: str | None = None,
        idempotency_key: str | None = None,
        **terms: Any,
    ) -> UsageRecord:
        """Record a call of a model with its price; it is durable when this returns.

        It counts once for its `id`. More terms: `provider`, `usage_type`, `time`, `estimated`,
        `description`, `metadata`, `check_id`, and all other counts.
        """
        asked = body(
            model_id=model_id,
            context=context,
            account_id=account_id,
            transaction_id=transaction_id,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            id=id,
            **terms,
        )
        return self._make(UsageRecord, "/api/v1/usage", asked, key=idempotency_key)

    def record_many(
        self, records: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> Sequence[UsageRecord]:
        """Record many calls, each with the terms of `record`: all become durable, or none."""
        items = [body(**{"context": "system", **one}) for one in records]
        path = "/api/v1/usage/batch"
        made = self._make(dict[str, Any], path, {"items": items}, key=idempotency_key)
        return [_json.read(UsageRecord, one) for one in made["items"]]

    def list(self, **filters: Any) -> Page[UsageRecord]:
        """Records, tracked calls included, newest first.

        `account_id`, `model_id`, `provider`, `context`, `key`, `conversation_id`, `from_`, `to`,
        `wait`, `limit`, `cursor`.
        """
        return self._page(UsageRecord, "/api/v1/usage", **filters)

    def summary(self, **filters: Any) -> UsageSummary:
        """Totals by model and by context; filters as of `list`, and `tag`."""
        return self._get(UsageSummary, "/api/v1/usage/summary", **filters)

    def track(
        self,
        key: str,
        *,
        response: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        open_ai_response: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        usage: Mapping[str, Any] | None = None,
        provider: str | None = None,
        model_id: str | None = None,
        query: str | None = None,
        tags: Sequence[str] | None = None,
        conversation_id: str | None = None,
        subject: str | None = None,
        time: datetime | None = None,
        id: str | None = None,
        idempotency_key: str | None = None,
        **terms: Any,
    ) -> UsageRecord:
        """Record a call by its provider's answer (`response`), or by its counts (`usage`).

        A streamed answer is its last event with usage, or all of its events. It counts once for
        its `id`, or else for the answer's, or else for its `idempotency_key`.
        """
        asked = body(
            key=key,
            response=response,
            open_ai_response=open_ai_response,
            usage=usage,
            provider=provider,
            model_id=model_id,
            query=query,
            tags=tags,
            conversation_id=conversation_id,
            subject=subject,
            time=time,
            id=id,
            **terms,
        )
        return self._make(UsageRecord, "/api/v1/track", asked, key=idempotency_key)

    def track_summary(self, by: str = "key", **filters: Any) -> TrackedSummary:
        """Tracked calls `by` key, tag or conversation; filters as of `summary`."""
        return self._get(TrackedSummary, "/api/v1/track/summary", by=by, **filters)


class Prices(Resource):
    """`/api/v1/prices`, `/api/v1/models` and `/api/v1/cost`."""

    def models(self, **filters: Any) -> Page[Model]:
        """Models with their prices of now: `provider`, `model_id`, `own`, `limit`, `cursor`."""
        return self._page(Model, "/api/v1/models", **filters)

    def cost(
        self,
        model_id: str,
        *,
        provider: str | None = None,
        time: datetime | None = None,
        **counts: Any,
    ) -> Cost:
        """What a call costs, without recording it: `input_tokens`, `output_tokens`, …"""
        asked = body(model_id=model_id, provider=provider, time=time, **counts)
        return _json.read(Cost, self._send("POST", "/api/v1/cost", asked))

    def create(
        self,
        model: str,
        rates: Mapping[str, Any],
        *,
        provider: str | None = None,
        valid_from: datetime | None = None,
        valid_until: datetime | None = None,
        note: str | None = None,
    ) -> Price:
        """A price of one's own; it wins over the catalogue.

        `rates` are by unit, as `{"inputTokens": Decimal("0.60")}`: US dollars for a million tokens.
        """
        asked = _price(model, rates, provider, valid_from, valid_until, note)
        return self._make(Price, "/api/v1/prices", asked)

    def list(self) -> Page[Price]:
        """One's own prices."""
        return self._page(Price, "/api/v1/prices")

    def get(self, id: str) -> Price:
        """One price."""
        return self._get(Price, f"/api/v1/prices/{segment(id)}")

    def replace(
        self,
        id: str,
        model: str,
        rates: Mapping[str, Any],
        *,
        provider: str | None = None,
        valid_from: datetime | None = None,
        valid_until: datetime | None = None,
        note: str | None = None,
    ) -> Price:
        """Set all of a price."""
        asked = _price(model, rates, provider, valid_from, valid_until, note)
        return self._change(Price, "PUT", f"/api/v1/prices/{segment(id)}", asked)

    def delete(self, id: str) -> None:
        """Forget a price."""
        self._delete(f"/api/v1/prices/{segment(id)}")


def _price(
    model: str,
    rates: Mapping[str, Any],
    provider: str | None,
    valid_from: datetime | None,
    valid_until: datetime | None,
    note: str | None,
) -> dict[str, Any]:
    return body(
        model=model,
        rates=rates,
        provider=provider,
        valid_from=valid_from,
        valid_until=valid_until,
        note=note,
    )
