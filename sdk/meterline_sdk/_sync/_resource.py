# Written by sdk/unasync.py from _async/_resource.py: change that file.
"""What the parts of the API have in common."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from meterline_sdk import _json
from meterline_sdk._paging import following, items_of
from meterline_sdk._request import Request, as_query, idempotency_key
from meterline_sdk._sync._client import Transport
from meterline_sdk.models import Page

T = TypeVar("T")

JSON = {"content-type": "application/json"}


class Resource:
    """A part of the API."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _get(self, kind: type[T], path: str, **parameters: Any) -> T:
        found = self._transport.send(Request("GET", path, as_query(**parameters)))
        return _json.read(kind, found)

    def _page(self, kind: type[T], path: str, **parameters: Any) -> Page[T]:
        request = Request("GET", path, as_query(**parameters))
        content, headers = self._transport.send_raw(request)
        answer = _json.loads(content)
        items = [_json.read(kind, one) for one in items_of(answer)]
        return Page(items, following(answer, headers.get("link")))

    def _delete(self, path: str, **parameters: Any) -> None:
        self._transport.send(Request("DELETE", path, as_query(**parameters)))

    def _send(
        self, method: str, path: str, body: Any, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        request = Request(method, path, {}, _json.dumps(body), {**JSON, **(headers or {})})
        return self._transport.send(request)

    def _change(self, kind: type[T], method: str, path: str, body: Any) -> T:
        """PUT or PATCH: doing it twice is doing it once."""
        return _json.read(kind, self._send(method, path, body))

    def _make(self, kind: type[T], path: str, body: Any = None, *, key: str | None = None) -> T:
        """A POST that does something: its idempotency key makes every retry the same call."""
        headers = {"idempotency-key": key or idempotency_key()}
        answer = self._send("POST", path, {} if body is None else body, headers=headers)
        return _json.read(kind, answer)


def every(listing: Callable[..., Page[T]], *args: Any, **filters: Any) -> Iterator[T]:
    """All items of a listing, page after page: `every(meterline.usage.list, model_id="gpt-4o")`."""
    place: Mapping[str, str] | None = {}
    while place is not None:
        page = listing(*args, **{**filters, **place})
        yield from page
        place = page.following
