"""Records of model calls, and prices."""

from collections.abc import Mapping, Sequence
from typing import Any

from meterline_sdk import _json
from meterline_sdk._async._resource import AsyncResource
from meterline_sdk._json import body
from meterline_sdk._request import segment
from meterline_sdk.models import Cost, UsagePage, UsageRecord

Json = Mapping[str, Any]


class AsyncUsage(AsyncResource):
    """`/api/v1/usage` and `/api/v1/track`."""

    async def record(
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
        **terms: Any,
    ) -> UsageRecord:
        """Record a call of a model with its price. It counts once for its `id`."""
        asked = body(
            model_id=model_id,
            context=context,
            account_id=account_id,
            transaction_id=transaction_id,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            **terms,
        )
        return _json.read(UsageRecord, await self._move("/api/v1/usage", asked, key=id))

    async def list(self, **filters: Any) -> UsagePage:
        """Records, newest first; `cursor=page.next_cursor` leads on."""
        return _json.read(UsagePage, await self._get("/api/v1/usage", **filters))

    async def summary(self, **filters: Any) -> Json:
        """Totals by model and by context."""
        found: Json = await self._get("/api/v1/usage/summary", **filters)
        return found

    async def track(
        self,
        key: str,
        *,
        response: Mapping[str, Any] | None = None,
        provider: str | None = None,
        usage: Mapping[str, Any] | None = None,
        query: str | None = None,
        tags: Sequence[str] | None = None,
        conversation_id: str | None = None,
        id: str | None = None,
        **terms: Any,
    ) -> UsageRecord:
        """Record a call by its provider's answer (`response`), or by its counts (`usage`)."""
        asked = body(
            key=key,
            response=response,
            provider=provider,
            usage=usage,
            query=query,
            tags=tags,
            conversation_id=conversation_id,
            **terms,
        )
        return _json.read(UsageRecord, await self._move("/api/v1/track", asked, key=id))

    async def track_summary(self, **filters: Any) -> Json:
        """Tracked calls `by` key, tag or conversation."""
        found: Json = await self._get("/api/v1/track/summary", **filters)
        return found


class AsyncPrices(AsyncResource):
    """`/api/v1/prices`, `/api/v1/models` and `/api/v1/cost`."""

    async def models(self, **filters: Any) -> Json:
        """The models that have a price."""
        found: Json = await self._get("/api/v1/models", **filters)
        return found

    async def cost(self, model_id: str, **counts: Any) -> Cost:
        """What a call costs, without recording it."""
        asked = body(model_id=model_id, **counts)
        return _json.read(Cost, await self._send("POST", "/api/v1/cost", asked))

    async def create(self, model: str, rates: Mapping[str, Any], **terms: Any) -> Json:
        """A price of one's own; it wins over the catalogue."""
        asked = body(model=model, rates=rates, **terms)
        made: Json = await self._send("POST", "/api/v1/prices", asked)
        return made

    async def list(self) -> Sequence[Json]:
        """One's own prices."""
        found = await self._get("/api/v1/prices")
        items: Sequence[Json] = found["items"]
        return items

    async def delete(self, id: str) -> None:
        """Forget a price."""
        await self._delete(f"/api/v1/prices/{segment(id)}")
