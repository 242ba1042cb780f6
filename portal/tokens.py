"""Portal tokens: what lets an end user's browser read one subject's meters, for a short while.

A token is a JWT signed with HS256 by a secret that only this installation knows. The signature
and the claims say who may try; the row kept for each token says whether it still may, so a token
can be revoked.
"""

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import jwt

from meterline.kernel.clock import Clock
from meterline.kernel.errors import FieldError, UnauthorizedError, ValidationError
from meterline.kernel.ids import new_ulid
from meterline.kernel.meters import is_slug
from meterline.kernel.text import is_text
from portal.store import PortalToken, TokenStore

ALGORITHM = "HS256"
ISSUER = "meterline"
AUDIENCE = "meterline:portal"
_MIN_SECRET_BYTES = 32
_MAX_TOKEN_LENGTH = 16_384


@dataclass(frozen=True, slots=True)
class PortalLimits:
    """How long tokens live and how much one may hold."""

    default_lifetime_seconds: int = 3_600
    max_lifetime_seconds: int = 86_400
    max_subject_length: int = 512
    """Characters. The subject is part of the token, and proxies bound the length of a header."""
    max_meter_slugs: int = 100
    max_page: int = 100
    """Tokens in one listing."""
    default_page: int = 25
    keep_expired_seconds: int = 7 * 86_400
    """How long an expired or revoked token is still known, for the listing."""
    remember_seconds: float = 0.5
    """How long a token is taken as not revoked after a look. Revocation is visible after that."""
    remembered_tokens: int = 10_000


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says. Its times are whole seconds."""

    id: str
    namespace: str
    subject: str
    issued_at: datetime
    expires_at: datetime


def sign(claims: Claims, secret: str) -> str:
    """The token's text."""
    payload = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "jti": claims.id,
        "ns": claims.namespace,
        "sub": claims.subject,
        "iat": int(claims.issued_at.timestamp()),
        "exp": int(claims.expires_at.timestamp()),
    }
    return jwt.encode(payload, secret, algorithm=ALGORITHM)


def verify(token: str, secret: str, now: datetime) -> Claims:
    """What a genuine token says that is good at `now`; anything else is `UnauthorizedError`."""
    if len(token) > _MAX_TOKEN_LENGTH or not token.isascii():
        raise _refused()
    try:
        payload = jwt.decode(
            token,
            secret,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            issuer=ISSUER,
            options={
                "require": ["iss", "aud", "jti", "sub", "iat", "exp"],
                "strict_aud": True,
                # Times are checked below, against the caller's clock.
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        raise _refused() from None
    if not _is_canonical(token, secret):
        raise _refused()
    return _claims(payload, now)


def _is_canonical(token: str, secret: str) -> bool:
    """Whether the signature is spelt as we spell it: base64 has several spellings of some bytes."""
    signed, _, signature = token.rpartition(".")
    digest = hmac.digest(secret.encode(), signed.encode(), "sha256")
    return hmac.compare_digest(urlsafe_b64encode(digest).rstrip(b"="), signature.encode())


def _claims(payload: dict[str, Any], now: datetime) -> Claims:
    texts = [payload.get(name) for name in ("jti", "ns", "sub")]
    seconds = [payload.get(name) for name in ("iat", "exp")]
    if not all(isinstance(text, str) for text in texts):
        raise _refused()
    if not all(type(second) is int and 0 <= second < 1 << 35 for second in seconds):
        raise _refused()
    claims = Claims(
        str(texts[0]),
        str(texts[1]),
        str(texts[2]),
        datetime.fromtimestamp(int(payload["iat"]), UTC),
        datetime.fromtimestamp(int(payload["exp"]), UTC),
    )
    if now >= claims.expires_at:
        raise UnauthorizedError("the portal token has expired")
    return claims


def _refused() -> UnauthorizedError:
    return UnauthorizedError("the portal token is not valid")


class PortalService:
    """Issues, lists and revokes tokens, and tells who a token speaks for."""

    def __init__(
        self,
        store: TokenStore,
        clock: Clock,
        secret: str | None = None,
        limits: PortalLimits | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Without a `secret` the store makes one and keeps it."""
        if secret is not None and len(secret.encode()) < _MIN_SECRET_BYTES:
            raise ValueError(f"the portal's secret needs at least {_MIN_SECRET_BYTES} bytes")
        self._store = store
        self._clock = clock
        self._secret = secret
        self.limits = limits or PortalLimits()
        self._monotonic = monotonic
        self._remembered: dict[bytes, tuple[PortalToken, float]] = {}

    async def create(
        self,
        namespace: str,
        subject: str,
        expires_at: datetime | None = None,
        allowed_meter_slugs: Sequence[str] | None = None,
    ) -> tuple[PortalToken, str]:
        """A new token and its text, which is nowhere kept. Without slugs it reads every meter."""
        now = self._clock()
        if expires_at is None:
            expires_at = now + timedelta(seconds=self.limits.default_lifetime_seconds)
        expires_at = _whole_second(expires_at)
        errors = _faults(subject, expires_at, allowed_meter_slugs, now, self.limits)
        if errors:
            raise ValidationError(f"{errors[0].where}: {errors[0].reason}", errors=errors)
        token = PortalToken(
            id=new_ulid(now),
            namespace=namespace,
            subject=subject,
            allowed_meter_slugs=(
                None if allowed_meter_slugs is None else tuple(dict.fromkeys(allowed_meter_slugs))
            ),
            created_at=now,
            expires_at=expires_at,
        )
        secret = await self._signing_secret()
        forget_before = now - timedelta(seconds=self.limits.keep_expired_seconds)
        await self._store.add(token, forget_before)
        return token, sign(Claims(token.id, namespace, subject, now, expires_at), secret)

    async def list(self, namespace: str, limit: int | None = None) -> Sequence[PortalToken]:
        """The newest tokens that were not revoked; never their text."""
        page = min(limit or self.limits.default_page, self.limits.max_page)
        return await self._store.list(namespace, page)

    async def invalidate(
        self, namespace: str, token_id: str | None = None, subject: str | None = None
    ) -> int:
        """Revoke the token with that id, those of a subject, or all; answers how many.

        No process takes them any more within a second.
        """
        if not all(is_text(name) for name in (token_id, subject) if name is not None):
            return 0  # no token has such a name, and not every database can be asked
        count = await self._store.revoke(namespace, token_id, subject, self._clock())
        self._remembered.clear()
        return count

    async def authenticate(self, authorization: str | None) -> PortalToken:
        """Whom `Authorization: Bearer <token>` speaks for, or `UnauthorizedError`."""
        scheme, _, text = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise UnauthorizedError("a portal token is needed: Authorization: Bearer <token>")
        now = self._clock()
        digest = sha256(text.encode("utf-8", "replace")).digest()
        known = self._remembered.get(digest)
        if known is not None and self._monotonic() < known[1]:
            if now >= known[0].expires_at:
                raise UnauthorizedError("the portal token has expired")
            return known[0]
        until = self._monotonic() + self.limits.remember_seconds
        claims = verify(text.strip(), await self._signing_secret(), now)
        token = await self._store.find(claims.id)
        self._remembered.pop(digest, None)
        if (
            token is None
            or token.revoked_at is not None
            or (token.namespace, token.subject) != (claims.namespace, claims.subject)
            or now >= token.expires_at
        ):
            raise UnauthorizedError("the portal token was revoked or is unknown")
        while len(self._remembered) >= self.limits.remembered_tokens:
            self._remembered.pop(next(iter(self._remembered)))
        self._remembered[digest] = (token, until)
        return token

    async def _signing_secret(self) -> str:
        if self._secret is None:
            self._secret = await self._store.secret(self._clock())
        return self._secret


def _whole_second(instant: datetime) -> datetime:
    try:
        return instant.astimezone(UTC).replace(microsecond=0)
    except OverflowError:  # at the ends of the calendar, another zone's year does not exist
        return instant.replace(tzinfo=UTC, microsecond=0)


def _faults(
    subject: str,
    expires_at: datetime,
    slugs: Sequence[str] | None,
    now: datetime,
    limits: PortalLimits,
) -> list[FieldError]:
    errors = []
    if not 1 <= len(subject) <= limits.max_subject_length or not is_text(subject):
        errors.append(
            FieldError(
                "subject", f"1 to {limits.max_subject_length} characters, none of them a control"
            )
        )
    if expires_at <= now:
        errors.append(FieldError("expiresAt", "is not in the future"))
    elif expires_at > now + timedelta(seconds=limits.max_lifetime_seconds):
        errors.append(
            FieldError("expiresAt", f"a token lives at most {limits.max_lifetime_seconds} seconds")
        )
    if slugs is not None and not 1 <= len(slugs) <= limits.max_meter_slugs:
        errors.append(
            FieldError("allowedMeterSlugs", f"1 to {limits.max_meter_slugs} slugs, or absent")
        )
    elif not all(is_slug(slug) for slug in slugs or ()):
        errors.append(FieldError("allowedMeterSlugs", "holds what cannot be a meter's slug"))
    return errors
