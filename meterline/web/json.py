"""Answers as JSON with exact numbers."""

from typing import Any

import msgspec
from starlette.responses import JSONResponse

_encoder = msgspec.json.Encoder(decimal_format="number")


def encode(content: Any) -> bytes:
    """Compact JSON. Decimals become numbers with every digit, times RFC 3339, structs objects.

    A Decimal is written as `str` writes it, which may be with an exponent; where a plain number is
    wanted, pass `msgspec.Raw(format_number(value).encode())`.
    """
    return _encoder.encode(content)


class ExactJSONResponse(JSONResponse):
    """A JSON answer whose type is exactly `application/json`, and whose decimals lose no digit."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The body."""
        return encode(content)
