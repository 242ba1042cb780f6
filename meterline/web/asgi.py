"""Small helpers for raw ASGI handlers, where a framework would cost more than the work."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from meterline.kernel.errors import MeterlineError, PayloadTooLargeError
from meterline.web.problem import problem_response, request_id_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)


class ClientGoneError(Exception):
    """The client hung up before its request was complete; nobody waits for an answer."""


class BodyTimeoutError(MeterlineError):
    """The client was too slow with its body. It may try again."""

    status = 408
    title = "Request Timeout"


def header(scope: Scope, name: bytes) -> bytes | None:
    """The value of the first header `name` (in lower case), None if there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return value  # type: ignore[no-any-return]
    return None


async def read_body(receive: Receive, limit: int) -> bytes:
    """The whole request body; `PayloadTooLargeError` as soon as it passes `limit` bytes."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise _too_large(limit)
        return body
    chunks = [body]
    size = len(body)
    while size <= limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk: bytes = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if not message.get("more_body", False):
            break
    if size > limit:
        raise _too_large(limit)
    return b"".join(chunks)


async def send_response(
    send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes = b""
) -> None:
    """Send a complete response. `headers` must hold the content length, if there is one."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_problem(send: Send, error: BaseException, request_id: str) -> None:
    """Send an error as problem+json."""
    await send_response(send, *problem_response(error, request_id))


class ErrorBoundary:
    """The outermost layer: what escapes from `app` is logged once and answered as a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def tracking_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, tracking_send)
        except ClientGoneError:
            return
        except Exception as error:
            request_id = request_id_of(scope)
            if not isinstance(error, MeterlineError):
                logger.exception("unexpected error in request %s", request_id)
            if not started:
                await send_problem(send, error, request_id)


class BodyLimit:
    """Reads the body of a request before `app` does, and refuses one of more than `max_bytes`.

    A client has `timeout_seconds` to send it.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_seconds: float = 30.0) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._timeout_seconds = timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app on a body that is known to fit."""
        if scope["type"] != "http" or not _has_body(scope):
            await self._app(scope, receive, send)
            return
        try:
            declared = header(scope, b"content-length")
            if _declares_more(declared, self._max_bytes):
                raise _too_large(self._max_bytes)
            async with asyncio.timeout(self._timeout_seconds):
                body = await read_body(receive, self._max_bytes)
        except TimeoutError:
            late = BodyTimeoutError(f"the body did not arrive within {self._timeout_seconds:g} s")
            await send_problem(send, late, request_id_of(scope))
            return
        except PayloadTooLargeError as error:
            await send_problem(send, error, request_id_of(scope))
            return
        except ClientGoneError:
            return
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"the request body has more than {limit} bytes", extensions={"maxBytes": limit}
    )


def _declares_more(content_length: bytes | None, limit: int) -> bool:
    if content_length is None or not content_length.isdigit():
        return False
    return len(content_length) > 18 or int(content_length) > limit
