"""Which texts are harmless: the CloudEvents type `String`."""

import re

# Controls, surrogates and noncharacters.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
    + "]"
)

TEXT_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f\ufdd0-\ufdef\ufffe\uffff]*$"
"""What a JSON schema can say of it: all but the noncharacters beyond the first 65,536."""


def is_text(text: str) -> bool:
    """Whether `text` has no control character, half surrogate pair or noncharacter."""
    return _FORBIDDEN.search(text) is None
