"""The connection to a server: keys, time-outs, retries, errors."""

import asyncio
import os
import random
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import httpx2

from meterline_sdk import _json
from meterline_sdk._request import Request, RetryPolicy, wait_before_retry
from meterline_sdk.errors import ConnectionFailedError, api_error
from meterline_sdk.version import __version__

DEFAULT_URL = "http://127.0.0.1:8888"


class AsyncTransport:
    """Sends requests to one server, over connections that are kept open.

    An `http_client` that is given is the caller's: to close, and to make anew after a fork.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_seconds: float = 10.0,
        retries: RetryPolicy | None = None,
        http_client: httpx2.AsyncClient | None = None,
    ) -> None:
        self.base_url = (base_url or os.environ.get("METERLINE_URL") or DEFAULT_URL).rstrip("/")
        self.api_key = api_key or os.environ.get("METERLINE_API_KEY")
        self.timeout_seconds = timeout_seconds
        self.retries = retries or RetryPolicy()
        self.given = http_client
        self._headers = {"user-agent": f"meterline-sdk/{__version__}", "accept": "application/json"}
        if self.api_key:
            self._headers["authorization"] = f"Bearer {self.api_key}"
        self._http = http_client or httpx2.AsyncClient(timeout=timeout_seconds)
        if http_client is None:
            _owners.add(self)

    def start_over(self) -> None:
        """In a forked child: who writes to a connection of the parent may get its answers."""
        self._http = httpx2.AsyncClient(timeout=self.timeout_seconds)

    async def send(self, request: Request, *, timeout_seconds: float | None = None) -> Any:
        """The JSON of the answer, None when it has none.

        Raises `APIError`s for refusals and `ConnectionFailedError` when no answer came.
        """
        content, _ = await self.send_raw(request, timeout_seconds=timeout_seconds)
        return _json.loads(content) if content else None

    async def send_raw(
        self, request: Request, *, timeout_seconds: float | None = None
    ) -> tuple[bytes, "httpx2.Headers"]:
        """The bytes of the answer, and its headers."""
        tries = 0
        while True:
            status = retry_after = None
            try:
                answer = await self._http.request(
                    request.method,
                    self.base_url + request.path,
                    params=dict(request.query),
                    content=request.content,
                    headers={**self._headers, **request.headers},
                    timeout=timeout_seconds or self.timeout_seconds,
                )
            except httpx2.TransportError as error:
                why = str(error) or type(error).__name__
                failure: Exception = ConnectionFailedError(
                    f"{request.method} {self.base_url}{request.path}: {why}"
                )
                failure.__cause__ = error
            else:
                if answer.is_success:
                    return answer.content, answer.headers
                status, retry_after = answer.status_code, answer.headers.get("retry-after")
                failure = api_error(status, _problem(answer.content), dict(answer.headers))
                if status == 409 and retry_after is not None:
                    # An earlier try of this request is under way: it is not refused, but late.
                    failure = ConnectionFailedError(str(failure))
            wait = wait_before_retry(
                self.retries, request, tries, status, retry_after, random.random()
            )
            if wait is None:
                raise failure
            tries += 1
            await asyncio.sleep(wait)

    async def close(self) -> None:
        """Close the connections."""
        if self.given is None:
            await self._http.aclose()
            _owners.discard(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


_owners: "weakref.WeakSet[AsyncTransport]" = weakref.WeakSet()
"""Those whose connections are their own."""


def _start_over() -> None:
    for transport in list(_owners):
        transport.start_over()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)


async def without_waiting(function: Callable[..., None], *args: Any) -> None:
    """Call what waits for threads: with asyncio in a thread, as the event loop must not wait."""
    await asyncio.to_thread(function, *args)


def _problem(content: bytes) -> Any:
    try:
        return _json.loads(content)
    except ValueError:
        return None
