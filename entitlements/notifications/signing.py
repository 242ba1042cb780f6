"""Signatures by Standard Webhooks 1.0.0 (https://www.standardwebhooks.com), scheme `v1`."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from datetime import datetime

from meterline.kernel.errors import ValidationError
from meterline.kernel.ids import new_secret

PREFIX = "whsec_"
SECRET_PATTERN = r"^(whsec_)?[a-zA-Z0-9+/=]{32,100}$"
_MIN_BYTES = 24
_SECRET = re.compile(SECRET_PATTERN, re.ASCII)


def generate_secret() -> str:
    """A new secret."""
    return PREFIX + base64.b64encode(new_secret().encode()).decode()


def check_secret(secret: str) -> None:
    """`ValidationError` unless the receiver's library can use it."""
    if not _SECRET.fullmatch(secret):
        raise ValidationError(f"must match {SECRET_PATTERN}")
    try:
        key = _key(secret)
    except binascii.Error:
        raise ValidationError("must be base64 after the prefix") from None
    if len(key) < _MIN_BYTES:
        raise ValidationError(f"must hold at least {_MIN_BYTES} bytes")


def signed_headers(
    message_id: str, now: datetime, body: bytes, secrets: Iterable[str]
) -> dict[str, str]:
    """The headers of a message: one signature per secret, so that a secret can be replaced."""
    timestamp = str(int(now.timestamp()))
    signed = b"%s.%s.%s" % (message_id.encode(), timestamp.encode(), body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(_signature(secret, signed) for secret in secrets),
    }


def _signature(secret: str, signed: bytes) -> str:
    digest = hmac.new(_key(secret), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def _key(secret: str) -> bytes:
    text = secret.removeprefix(PREFIX).rstrip("=")
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
