"""What the parts of the API have in common."""

from collections.abc import Mapping
from typing import Any, TypeVar

from meterline_sdk import _json
from meterline_sdk._async._client import AsyncTransport
from meterline_sdk._request import Request, as_query, idempotency_key

T = TypeVar("T")


class AsyncResource:
    """A part of the API."""

    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport

    async def _get(self, path: str, **parameters: Any) -> Any:
        return await self._transport.send(Request("GET", path, as_query(**parameters)))

    async def _delete(self, path: str, **parameters: Any) -> None:
        await self._transport.send(Request("DELETE", path, as_query(**parameters)))

    async def _send(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        content = None if body is None else _json.dumps(body)
        sent = {"content-type": "application/json", **(headers or {})}
        return await self._transport.send(Request(method, path, {}, content, sent))

    async def _move(self, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """A POST that moves value: its idempotency key makes every retry the same call."""
        headers = {"idempotency-key": key or idempotency_key()}
        return await self._send("POST", path, body if body is not None else {}, headers=headers)
