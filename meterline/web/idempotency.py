"""`Idempotency-Key`: a POST that is sent again with its key is answered again, and done once.

`Idempotency` stands in front of an application and needs nothing of its endpoints but one thing:
what they make must have the id that `EffectId` (or `effect_of`) gives, when it gives one. Then a
request whose server died between its effect and its answer can be sent again, too.

The same key with the same request gets the same answer, byte for byte, with the header
`Idempotent-Replayed: true`. With another request it is a 409. While the first is under way, the
second waits a little, then gets a 409 to try again. Failures that the caller should retry (5xx,
429, 408, and 401 or 403) are not remembered.
"""

import asyncio
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request

from meterline.kernel.clock import Clock
from meterline.kernel.errors import (
    ConflictError,
    FieldError,
    ForbiddenError,
    UnauthorizedError,
    ValidationError,
)
from meterline.kernel.idempotency import (
    Answer,
    Claim,
    Found,
    effect_id,
    fingerprint,
    request_id,
)
from meterline.kernel.ids import new_ulid
from meterline.web.asgi import (
    ASGIApp,
    ErrorBoundary,
    Message,
    Receive,
    Scope,
    Send,
    header,
    read_body,
    send_response,
)
from meterline.web.auth import Authenticator, Principal

_EFFECT = "meterline.effect_id"
_HEADER = "Idempotency-Key"
KEY_PATTERN = "^[!-~]([ -~]*[!-~])?$"
"""A key: printable ASCII, with spaces only inside."""
_KEY = re.compile(KEY_PATTERN)
_NOT_KEPT = frozenset({401, 403, 408, 429})
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.01, 0.2


@dataclass(frozen=True, slots=True)
class IdempotencyLimits:
    """How long answers are kept, and how large a request and an answer may be."""

    keep_seconds: float = 172_800.0
    """How long an answer is kept; 24 hours is the least."""
    lease_seconds: float = 60.0
    """How long a server may work on a request before another one may."""
    wait_seconds: float = 5.0
    """How long a duplicate waits for the answer of the first."""
    max_key_length: int = 255
    max_body_bytes: int = 4_194_304
    """Of a request that has a key."""


class RequestStore(Protocol):
    """Where requests and their answers are kept."""

    async def claim(self, claim: Claim, now: datetime) -> Found | None:
        """None when it is the claimer's to do; what is known when another one has it."""
        ...

    async def finish(self, claim: Claim, answer: Answer, until: datetime) -> None:
        """Keep the answer of a claim until an instant."""
        ...

    async def abandon(self, claim: Claim) -> None:
        """Forget a claim, so that the request may be sent again."""
        ...


WITHOUT_KEY = frozenset(
    {"/api/v1/events", "/api/v1/stripe/webhook", "/api/v1/keys", "/api/v1/portal/tokens"}
)
"""POSTs that take no key: each event has an id and counts once, and secrets are not kept."""


class _UnderWayError(ConflictError):
    """Another request with the key has not been answered yet."""

    retry_after_seconds = 1

    def __init__(self) -> None:
        super().__init__(
            f"a request with this {_HEADER} is under way: send it again later",
            extensions={"retryAfter": self.retry_after_seconds},
        )


class Idempotency:
    """Remembers the answers of POST requests that have an `Idempotency-Key`."""

    def __init__(
        self,
        app: ASGIApp,
        store: RequestStore,
        authenticator: Authenticator,
        clock: Clock,
        limits: IdempotencyLimits | None = None,
    ) -> None:
        self._app = app
        # Errors become answers inside, where they can be kept.
        self._answering = ErrorBoundary(app)
        self._store = store
        self._authenticator = authenticator
        self._clock = clock
        self._limits = limits or IdempotencyLimits()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app, unless its answer is known."""
        key = None if scope.get("path") in WITHOUT_KEY else _key_of(scope)
        principal = None if key is None else await self._principal(scope)
        if key is None or principal is None:
            await self._app(scope, receive, send)
            return
        await ErrorBoundary(_Once(self, key, principal))(scope, receive, send)

    async def once(
        self, key: str, principal: Principal, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer a request that has a key."""
        most = self._limits.max_key_length
        if len(key) > most or not _KEY.fullmatch(key):
            reason = f"must have 1 to {most} printable ASCII characters"
            raise ValidationError(f"{_HEADER} {reason}", errors=[FieldError(_HEADER, reason)])
        body = await read_body(receive, self._limits.max_body_bytes)
        route = scope["path"]
        claim = Claim(
            request_id(principal.namespace, route, key),
            _fingerprint(scope, principal, body),
            new_ulid(self._clock()),
            self._clock() + timedelta(seconds=self._limits.lease_seconds),
        )
        known = await self._claim(claim)
        if known is not None:
            headers = [*known.headers, (b"idempotent-replayed", b"true")]
            await send_response(send, known.status, headers, known.body)
            return
        scope[_EFFECT] = effect_id(principal.namespace, route, key)
        answer = await self._work(claim, scope, _replaying(body, receive))
        await send_response(send, answer.status, answer.headers, answer.body)

    async def _work(self, claim: Claim, scope: Scope, receive: Receive) -> Answer:
        captured = _Captured()
        try:
            await self._answering(scope, receive, captured)
            answer = captured.answer()
        except BaseException:
            await asyncio.shield(self._store.abandon(claim))
            raise
        if answer.status >= 500 or answer.status in _NOT_KEPT:
            await self._store.abandon(claim)
        else:
            until = self._clock() + timedelta(seconds=self._limits.keep_seconds)
            await self._store.finish(claim, answer, until)
        return answer

    async def _claim(self, claim: Claim) -> Answer | None:
        """The answer that is known; None when the claim is ours."""
        waited, pause = 0.0, _FIRST_WAIT_SECONDS
        while True:
            found = await self._store.claim(claim, self._clock())
            if found is None:
                return None
            if found.fingerprint != claim.fingerprint:
                raise ConflictError(
                    "this Idempotency-Key was used for another request: use a new key",
                    extensions={"field": _HEADER},
                )
            if found.answer is not None:
                return found.answer
            if waited >= self._limits.wait_seconds:
                raise _UnderWayError
            await asyncio.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, _LONGEST_WAIT_SECONDS)

    async def _principal(self, scope: Scope) -> Principal | None:
        """The caller; None for one that the application will refuse, or that has no API key."""
        sent = header(scope, b"authorization")
        try:
            return await self._authenticator.authenticate(
                None if sent is None else sent.decode("latin-1")
            )
        except (UnauthorizedError, ForbiddenError):
            return None


class _Once:
    """One request with a key, as an application, so that errors are answered as everywhere."""

    def __init__(self, owner: Idempotency, key: str, principal: Principal) -> None:
        self._owner = owner
        self._key = key
        self._principal = principal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._owner.once(self._key, self._principal, scope, receive, send)


class _Captured:
    """Takes an answer instead of the client."""

    def __init__(self) -> None:
        self._status = 500
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = tuple((name, value) for name, value in message["headers"])
        elif message["type"] == "http.response.body":
            self._parts.append(message.get("body", b""))

    def answer(self) -> Answer:
        return Answer(self._status, self._headers, b"".join(self._parts))


def effect_of(scope: Scope) -> str | None:
    """The id that what this request makes must have; None when it has no key."""
    found = scope.get(_EFFECT)
    return found if isinstance(found, str) else None


def key_parameter(limits: IdempotencyLimits) -> dict[str, Any]:
    """What the OpenAPI document says of the header, which every POST through it may have."""
    return {
        "name": _HEADER,
        "in": "header",
        "required": False,
        "description": "Sent again with the same body, the request is answered again, not done.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": limits.max_key_length,
            "pattern": KEY_PATTERN,
        },
    }


def _effect(request: Request) -> str | None:
    return effect_of(request.scope)


EffectId = Annotated[str | None, Depends(_effect)]
"""A parameter of an endpoint: the id of what it makes, None when any will do."""


def _key_of(scope: Scope) -> str | None:
    if scope["type"] != "http" or scope["method"] != "POST":
        return None
    sent = header(scope, b"idempotency-key")
    return None if sent is None else sent.decode("latin-1").strip()


def _fingerprint(scope: Scope, principal: Principal, body: bytes) -> bytes:
    kind = header(scope, b"content-type") or b""
    # What a key of few rights may not do, it may not learn from the answer to another key.
    scopes = ",".join(sorted(principal.scopes)).encode()
    return fingerprint([scope["query_string"], kind, scopes, body])


def _replaying(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
