"""Reading decoded JSON of others: what is missing is None, what is wrong says where. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Json = Any
"""Decoded JSON whose numbers are `int` or `Decimal`."""


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
        """A text that is not empty; anything else is None."""
        return self.value if isinstance(self.value, str) and self.value else None

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
        return number

    @property
    def needed(self) -> Decimal:
        """The same, which must be there."""
        number = self.count
        if number is None:
            raise BodyError(self.where, "is missing")
        return number
