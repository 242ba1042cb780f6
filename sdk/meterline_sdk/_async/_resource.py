"""What the parts of the API have in common."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from meterline_sdk import _json
from meterline_sdk._async._client import AsyncTransport
from meterline_sdk._paging import following, items_of
from meterline_sdk._request import Request, as_query, idempotency_key
from meterline_sdk.models import Page

T = TypeVar("T")

JSON = {"content-type": "application/json"}


class AsyncResource:
    """A part of the API."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def _get(self, kind: type[T], path: str, **parameters: Any) -> T:
        found = await self._transport.send(Request("GET", path, as_query(**parameters)))
        return _json.read(kind, found)

    async def _page(self, kind: type[T], path: str, **parameters: Any) -> Page[T]:
        request = Request("GET", path, as_query(**parameters))
        content, headers = await self._transport.send_raw(request)
        answer = _json.loads(content)
        items = [_json.read(kind, one) for one in items_of(answer)]
        return Page(items, following(answer, headers.get("link")))

    async def _delete(self, path: str, **parameters: Any) -> None:
        await self._transport.send(Request("DELETE", path, as_query(**parameters)))

    async def _send(
        self, method: str, path: str, body: Any, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        request = Request(method, path, {}, _json.dumps(body), {**JSON, **(headers or {})})
        return await self._transport.send(request)

    async def _change(self, kind: type[T], method: str, path: str, body: Any) -> T:
        """PUT or PATCH: doing it twice is doing it once."""
        return _json.read(kind, await self._send(method, path, body))

    async def _make(
        self, kind: type[T], path: str, body: Any = None, *, key: str | None = None
    ) -> T:
        """A POST that does something: its idempotency key makes every retry the same call."""
        headers = {"idempotency-key": key or idempotency_key()}
        answer = await self._send("POST", path, {} if body is None else body, headers=headers)
        return _json.read(kind, answer)


async def async_every(
    listing: Callable[..., Awaitable[Page[T]]], *args: Any, **filters: Any
) -> AsyncIterator[T]:
    """All items of a listing, page after page: `every(meterline.usage.list, model_id="gpt-4o")`."""
    place: Mapping[str, str] | None = {}
    while place is not None:
        page = await listing(*args, **{**filters, **place})
        for one in page:
            yield one
        place = page.following
