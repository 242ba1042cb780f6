"""Who calls: an API key in `Authorization: Bearer`, looked up once and then remembered briefly.

While no key was ever made the server is open: everyone is the default namespace's administrator.
The server then listens on loopback only. Revoking the last key does not open it again.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Protocol

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from meterline.kernel.access import DEFAULT_NAMESPACE, SCOPES, ApiKey, is_key, prefix_of
from meterline.kernel.errors import ForbiddenError, UnauthorizedError


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller: everything it does happens in `namespace`, as far as `scopes` go."""

    namespace: str
    scopes: frozenset[str]
    key_id: str | None = None

    def require(self, scope: str) -> None:
        """`ForbiddenError` unless the caller may do `scope`."""
        if scope not in self.scopes and "admin" not in self.scopes:
            raise ForbiddenError(f"this API key lacks the scope {scope!r}")


OPEN = Principal(DEFAULT_NAMESPACE, frozenset(SCOPES))
"""Everyone, while no key was ever made."""


class KeyLookup(Protocol):
    """Where keys are kept."""

    async def find(self, prefix: str) -> ApiKey | None:
        """The key with that prefix, revoked or not."""
        ...

    async def any_exists(self) -> bool:
        """Whether a key was ever made, revoked ones included."""
        ...


@dataclass(frozen=True, slots=True)
class AuthLimits:
    """How long an answer is remembered. The sum of both is how late a revocation can be seen."""

    remember_seconds: float = 0.5
    refresh_seconds: float = 0.25
    """While one caller looks the key up again, others use the last answer at most this long."""
    remembered_keys: int = 10_000


class Authenticator:
    """Turns the `Authorization` header into a `Principal`."""

    def __init__(
        self,
        keys: KeyLookup,
        limits: AuthLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._limits = limits or AuthLimits()
        self._monotonic = monotonic
        # By the SHA-256 of the header, so that no secret stays in memory.
        self._remembered: dict[bytes, tuple[Principal, float]] = {}
        self._open_until = float("-inf")
        self._closed = False

    async def authenticate(self, authorization: str | None) -> Principal:
        """The caller, or `UnauthorizedError`."""
        if authorization is not None:
            digest = sha256(authorization.encode("utf-8", "replace")).digest()
            known = self._remembered.get(digest)
            if known is not None:
                now = self._monotonic()
                if now < known[1]:
                    return known[0]
                self._let_others_pass(digest, known, now)
        else:
            digest = b""
        if not _is_token(authorization):
            now = self._monotonic()
            if now < self._open_until:
                return OPEN
            if now < self._open_until + self._limits.refresh_seconds / 2:
                # As with keys: one caller asks again, and the others need not wait for it.
                self._open_until = now + self._limits.refresh_seconds / 2
        return await self._look_up(authorization, digest)

    async def is_open(self) -> bool:
        """Whether no key was ever made."""
        self._closed = self._closed or await self._keys.any_exists()
        return not self._closed

    def forget(self) -> None:
        """Look everything up again: a key was made or revoked in this process."""
        self._remembered.clear()
        self._open_until = float("-inf")

    def _let_others_pass(self, digest: bytes, known: tuple[Principal, float], now: float) -> None:
        """Keep a burst of callers from all asking the database at the moment of expiry."""
        if now < known[1] + self._limits.refresh_seconds / 2:
            self._remembered[digest] = (known[0], now + self._limits.refresh_seconds / 2)

    async def _look_up(self, authorization: str | None, digest: bytes) -> Principal:
        until = self._monotonic() + self._limits.remember_seconds
        text = _bearer(authorization)
        prefix = prefix_of(text)
        key = await self._keys.find(prefix) if prefix else None
        if key is not None and is_key(text, key) and key.revoked_at is None:
            principal = Principal(key.namespace, key.scopes, key.id)
            while len(self._remembered) >= self._limits.remembered_keys:
                self._remembered.pop(next(iter(self._remembered)))
            self._remembered[digest] = (principal, until)
            return principal
        self._remembered.pop(digest, None)
        if not _is_token(authorization) and await self.is_open():
            self._open_until = until
            return OPEN
        raise UnauthorizedError(
            "an API key is needed: Authorization: Bearer <key>"
            if authorization is None
            else "the API key is unknown or revoked"
        )


def _is_token(authorization: str | None) -> bool:
    """Whether it is a portal token (a JWT): those are an end user's, and open nothing here."""
    return authorization is not None and authorization.count(".") == 2


def _bearer(authorization: str | None) -> str:
    scheme, _, text = (authorization or "").partition(" ")
    return text.strip() if scheme.lower() == "bearer" else ""


_api_key = HTTPBearer(scheme_name="ApiKey", description="An API key", auto_error=False)


def requires(scope: str) -> Callable[..., Awaitable[Principal]]:
    """A FastAPI dependency: the caller, who may do `scope` (401 or 403 otherwise).

    Reads `request.app.state.authenticator`.
    """

    async def caller(
        request: Request, _documented: Annotated[object, Depends(_api_key)]
    ) -> Principal:
        authenticator: Authenticator = request.app.state.authenticator
        principal = await authenticator.authenticate(request.headers.get("authorization"))
        principal.require(scope)
        return principal

    return caller
