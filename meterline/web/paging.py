"""Cursors: where a listing goes on, as text that callers pass back and do not look into.

A cursor holds the sort key of the last item shown, so a page costs the same however deep it is,
and items that arrive meanwhile neither repeat nor hide others.
"""

import base64
import binascii
from collections.abc import Sequence

import msgspec

from meterline.kernel.errors import FieldError, ValidationError

Part = str | int

_MAX_LENGTH = 4096
_MAX_INTEGER = 2**63 - 1
"""What databases can compare with."""


def encode_cursor(position: Sequence[Part]) -> str:
    """The cursor of a sort key."""
    return base64.urlsafe_b64encode(msgspec.json.encode(list(position))).rstrip(b"=").decode()


def decode_cursor(text: str, types: Sequence[type[Part]]) -> tuple[Part, ...]:
    """The sort key in a cursor, whose parts have these `types`; else `ValidationError`."""
    try:
        if len(text) > _MAX_LENGTH:
            raise ValueError
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        parts = msgspec.json.decode(raw, type=list[Part])
        if [type(part) for part in parts] != list(types):
            raise ValueError
        if any(isinstance(part, int) and abs(part) > _MAX_INTEGER for part in parts):
            raise ValueError
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        fault = FieldError("cursor", "is not one that this server gave")
        raise ValidationError(f"cursor {fault.reason}", errors=[fault]) from None
    return tuple(parts)
