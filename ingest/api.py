"""`POST /api/v1/events` as a raw ASGI application: the busiest endpoint, outside any framework."""

import asyncio
import logging
from time import perf_counter
from typing import Protocol

from ingest.deadlines import Deadlines
from ingest.encodings import coding_of
from ingest.faults import InvalidEventsError
from ingest.service import IngestService
from meterline.kernel.errors import (
    MeterlineError,
    PayloadTooLargeError,
    UnavailableError,
    UnsupportedMediaError,
)
from meterline.web.asgi import BodyTimeoutError, ClientGoneError, Receive, Scope, Send
from meterline.web.auth import Principal
from meterline.web.problem import problem_response, request_id_of

logger = logging.getLogger(__name__)

_END = {"type": "http.response.body", "body": b""}


class Authenticates(Protocol):
    """What the endpoint needs of the authenticator."""

    async def authenticate(self, authorization: str | None) -> Principal:
        """The caller, or `UnauthorizedError`."""
        ...


class IngestEndpoint:
    """Accepts events: 204 once they are durable, else a problem and nothing is stored."""

    def __init__(self, service: IngestService, authenticator: Authenticates) -> None:
        self._service = service
        self._authenticate = authenticator.authenticate
        self._metrics = service.metrics
        self._limits = service.limits
        self._deadlines = Deadlines(service.limits.body_timeout_seconds)
        self._buffered = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        started = perf_counter()
        try:
            await self._accept(scope, receive)
        except ClientGoneError:
            self._metrics.reject("client_gone")
            return
        except Exception as error:
            await self._refuse(error, scope, send)
        else:
            # The dictionary and its list are new: layers around this one add headers.
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send(_END)
        self._metrics.time(perf_counter() - started)

    async def _accept(self, scope: Scope, receive: Receive) -> None:
        content_type = authorization = coding = None
        length = 0
        for name, value in scope["headers"]:
            if name == b"content-type":
                if content_type is not None:
                    raise UnsupportedMediaError("the request has more than one Content-Type")
                content_type = value
            elif name == b"authorization":
                authorization = value.decode("latin-1")
            elif name == b"content-length":
                length = int(value) if value.isdigit() and len(value) < 19 else 0
            elif name == b"content-encoding":
                coding = value if coding is None else coding + b"," + value
        principal = await self._authenticate(authorization)
        principal.require("ingest")
        decoder = None if coding is None else coding_of(coding)
        if length > self._limits.max_body_bytes:
            raise self._too_large()
        held = 0
        try:
            chunks: list[bytes] = []
            more = True
            task = self._deadlines.begin()
            try:
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    chunk: bytes = message.get("body", b"")
                    more = message.get("more_body", False)
                    if chunk:
                        chunks.append(chunk)
                        held += len(chunk)
                        self._hold(len(chunk), held)
            except asyncio.CancelledError:
                if self._deadlines.was_late(task):
                    seconds = self._deadlines.seconds
                    raise BodyTimeoutError(f"the body took longer than {seconds:g} s") from None
                raise
            finally:
                self._deadlines.end(task)
            body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            await self._service.ingest(
                principal.namespace, scope["headers"], content_type, decoder, body
            )
        finally:
            self._buffered -= held

    def _hold(self, size: int, total: int) -> None:
        """Account for bytes that this request keeps in memory until it is answered."""
        self._buffered += size
        if total > self._limits.max_body_bytes:
            raise self._too_large()
        if self._buffered > self._limits.max_buffered_bytes and self._buffered > total:
            raise UnavailableError("too many request bodies are in memory")

    def _too_large(self) -> PayloadTooLargeError:
        limit = self._limits.max_body_bytes
        return PayloadTooLargeError(
            f"the request body has more than {limit} bytes", extensions={"maxBytes": limit}
        )

    async def _refuse(self, error: Exception, scope: Scope, send: Send) -> None:
        request_id = request_id_of(scope)
        self._metrics.reject(_reason(error))
        if not isinstance(error, MeterlineError):
            logger.exception("unexpected error in request %s", request_id)
        status, headers, body = problem_response(error, request_id)
        if status in _UNREAD:
            # The rest of the body may still be on its way, and is not worth reading.
            headers = [*headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


_UNREAD = frozenset({408, 413})
_REASONS = {
    400: "invalid_event",
    401: "unauthorized",
    403: "forbidden",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media",
    429: "rate_limited",
    503: "unavailable",
}


def _reason(error: Exception) -> str:
    """The label of a refusal in the metrics: one of a fixed set."""
    if isinstance(error, InvalidEventsError):
        return error.reason
    return _REASONS.get(error.status, "error") if isinstance(error, MeterlineError) else "error"
