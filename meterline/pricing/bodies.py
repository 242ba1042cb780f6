"""Reading decoded JSON of others: what is missing is None, what is wrong says where. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from meterline.kernel.text import is_text
from meterline.pricing.usage import MOST

Json = Any
"""Decoded JSON whose numbers are `int` or `Decimal`."""

MAX_NAME_LENGTH = 512
"""Characters of a model or of a term; nobody's are nearly as long."""
_MOST_SECONDS = 10**15


class BodyError(ValueError):
    """A body that is not what its provider documents. `where` is a path into it."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Part:
    """A member of a body, and where it is."""

    value: Json
    where: str = ""

    def __getitem__(self, name: str) -> "Part":
        """A member; None of what is missing. An array or a text in the way is an error."""
        where = f"{self.where}.{name}" if self.where else name
        if self.value is None:
            return Part(None, where)
        if not isinstance(self.value, Mapping):
            raise BodyError(self.where or "body", "must be an object")
        return Part(self.value.get(name), where)

    def either(self, *names: str) -> "Part":
        """The first of these members that is there."""
        found = [self[name] for name in names]
        return next((one for one in found if one.value is not None), found[0])

    def __bool__(self) -> bool:
        return self.value is not None

    @property
    def text(self) -> str | None:
        """A text that is not empty; anything else is None. Controls and surrogates are an error."""
        if not isinstance(self.value, str) or not self.value:
            return None
        if not is_text(self.value):
            raise BodyError(self.where, "must not hold a control character")
        return self.value

    @property
    def name(self) -> str | None:
        """The same, short enough to be the name of something."""
        text = self.text
        if text is not None and len(text) > MAX_NAME_LENGTH:
            raise BodyError(self.where, f"must have at most {MAX_NAME_LENGTH} characters")
        return text

    @property
    def instant(self) -> str | None:
        """When something was: whole seconds, or a text; anything else is None."""
        if isinstance(self.value, bool) or not isinstance(self.value, int | Decimal):
            return self.name
        # The Python clients write the seconds of the wire with a fraction of 0.
        return str(int(self.value)) if 0 <= self.value < _MOST_SECONDS else None

    @property
    def items(self) -> Sequence["Part"]:
        """The elements of an array; none of what is missing."""
        if self.value is None:
            return ()
        if not isinstance(self.value, Sequence) or isinstance(self.value, str):
            raise BodyError(self.where, "must be an array")
        return [Part(one, f"{self.where}[{index}]") for index, one in enumerate(self.value)]

    @property
    def count(self) -> Decimal | None:
        """A number that is not negative; None of what is missing or null."""
        value = self.value
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise BodyError(self.where, "must be a number")
        number = Decimal(value)
        if not number.is_finite() or number < 0:
            raise BodyError(self.where, "must be a number, and not negative")
        if number >= MOST:
            raise BodyError(self.where, f"must be less than {MOST:f}")
        return number

    @property
    def needed(self) -> Decimal:
        """The same, which must be there."""
        number = self.count
        if number is None:
            raise BodyError(self.where, "is missing")
        return number
