"""The only place that makes identifiers: ULIDs, as the API's ids are (https://github.com/ulid/spec)."""

import re
import secrets
from datetime import datetime

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [one + other for one in _ALPHABET for other in _ALPHABET]
_SHIFTS = range(120, -1, -10)
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}", re.ASCII)


def new_ulid(now: datetime) -> str:
    """A new ULID of 26 characters: 48 bits of milliseconds of `now`, 80 random bits."""
    number = (int(now.timestamp() * 1000) << 80) | secrets.randbits(80)
    return "".join([_PAIRS[(number >> shift) & 1023] for shift in _SHIFTS])


def is_ulid(text: str) -> bool:
    """Whether `text` has the shape of a ULID, in either case."""
    return _ULID.fullmatch(text) is not None


def new_secret(bytes_of_entropy: int = 32) -> str:
    """A random URL-safe secret."""
    return secrets.token_urlsafe(bytes_of_entropy)
