"""API keys as values: how one looks, what it may do, and what is kept of it.

A key is `ml_<prefix>_<secret>`. The prefix (`ml_` and 12 characters) finds the key and may be
shown; of the whole key only the SHA-256 is kept, which is enough because the secret holds 256
random bits, so nothing slower is needed against guessing.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from meterline.kernel.errors import FieldError, ValidationError
from meterline.kernel.ids import new_secret, new_ulid
from meterline.kernel.text import is_text

SCOPES = ("ingest", "read", "admin", "portal:issue")
"""Everything a key can be allowed to do. `admin` implies the others."""

DEFAULT_NAMESPACE = "default"

_KEY = re.compile(r"(ml_[0-9a-z]{12})_[A-Za-z0-9_-]{43}", re.ASCII)
_NAMESPACE = re.compile(r"[a-z0-9]+(?:[_-][a-z0-9]+)*", re.ASCII)
_PREFIX_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"
_MAX_NAME_LENGTH = 256
_MAX_NAMESPACE_LENGTH = 64


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a key."""

    id: str
    prefix: str
    hash: bytes
    namespace: str
    name: str
    scopes: frozenset[str]
    created_at: datetime
    revoked_at: datetime | None = None


def make_key(namespace: str, name: str, scopes: Iterable[str], now: datetime) -> tuple[ApiKey, str]:
    """A new key: what to keep of it, and its text, which nobody can show a second time."""
    wanted = frozenset(scopes)
    errors = [
        FieldError("scopes", f"unknown scope {scope!r}; there are {', '.join(SCOPES)}")
        for scope in sorted(wanted - set(SCOPES))
    ]
    if not wanted:
        errors.append(FieldError("scopes", "a key needs at least one scope"))
    if len(namespace) > _MAX_NAMESPACE_LENGTH or not _NAMESPACE.fullmatch(namespace):
        errors.append(
            FieldError("namespace", "1 to 64 of a-z and 0-9, with single - or _ between them")
        )
    if len(name) > _MAX_NAME_LENGTH or not is_text(name):
        reason = f"at most {_MAX_NAME_LENGTH} characters, none of them a control"
        errors.append(FieldError("name", reason))
    if errors:
        raise ValidationError(f"{errors[0].where}: {errors[0].reason}", errors=errors)
    prefix = "ml_" + "".join(secrets.choice(_PREFIX_ALPHABET) for _ in range(12))
    text = f"{prefix}_{new_secret()}"
    return ApiKey(new_ulid(now), prefix, hash_key(text), namespace, name, wanted, now), text


def given_key(text: str, name: str, now: datetime) -> ApiKey:
    """What to keep of a key that was made elsewhere: the default namespace's administrator's."""
    prefix = prefix_of(text)
    if prefix is None:
        raise ValidationError("a key is ml_, 12 of a-z and 0-9, _, and 43 of A-Z a-z 0-9 _ -")
    scopes = frozenset({"admin"})
    return ApiKey(new_ulid(now), prefix, hash_key(text), DEFAULT_NAMESPACE, name, scopes, now)


def hash_key(text: str) -> bytes:
    """What is kept of a key's text."""
    return hashlib.sha256(text.encode()).digest()


def prefix_of(text: str) -> str | None:
    """The prefix of a key's text; None for what cannot be a key."""
    match = _KEY.fullmatch(text)
    return match[1] if match else None


def is_key(text: str, kept: ApiKey) -> bool:
    """Whether `text` is the key of which `kept` is kept; takes the same time either way."""
    return hmac.compare_digest(hash_key(text), kept.hash)
