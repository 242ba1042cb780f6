# Written by sdk/unasync.py from _async/_resource.py: change that file.
"""What the parts of the API have in common."""

from collections.abc import Mapping
from typing import Any, TypeVar

from meterline_sdk import _json
from meterline_sdk._request import Request, as_query, idempotency_key
from meterline_sdk._sync._client import Transport

T = TypeVar("T")


class Resource:
    """A part of the API."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def _get(self, path: str, **parameters: Any) -> Any:
        return self._transport.send(Request("GET", path, as_query(**parameters)))

    def _delete(self, path: str, **parameters: Any) -> None:
        self._transport.send(Request("DELETE", path, as_query(**parameters)))

    def _send(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Any:
        content = None if body is None else _json.dumps(body)
        sent = {"content-type": "application/json", **(headers or {})}
        return self._transport.send(Request(method, path, {}, content, sent))

    def _move(self, path: str, body: Any = None, *, key: str | None = None) -> Any:
        """A POST that moves value: its idempotency key makes every retry the same call."""
        headers = {"idempotency-key": key or idempotency_key()}
        return self._send("POST", path, body if body is not None else {}, headers=headers)
