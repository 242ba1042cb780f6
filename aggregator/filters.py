"""Filters on the text of a dimension: a frozen tree. Pure.

Texts are compared by their code points, so `$gt` and its like are about spelling, not numbers.
In the pattern of `$like`, `%` stands for any characters, also none, `_` for exactly one, and
`\\%`, `\\_`, `\\\\` for themselves; the whole text has to fit.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from meterline.kernel.errors import FieldError, ValidationError
from meterline.kernel.meters import is_storable


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """How large a filter may be."""

    max_depth: int = 8
    """`$and` and `$or` inside each other."""
    max_nodes: int = 500
    """Operators in one filter."""
    max_values: int = 100
    """Texts in one `$in`, parts of one `$and`."""
    max_text_length: int = 2_048
    """Characters of one text."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`operator` is one of `COMPARISONS`."""

    operator: str
    operand: str


@dataclass(frozen=True, slots=True)
class Membership:
    """Whether the text is one of `values`, or with `negated` none of them."""

    values: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Every:
    """All parts hold."""

    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one part holds."""

    parts: tuple["Filter", ...]


Filter = Comparison | Membership | Every | Either

COMPARISONS: Mapping[str, Callable[[str, str], bool]] = {
    "$eq": lambda text, operand: text == operand,
    "$ne": lambda text, operand: text != operand,
    "$gt": lambda text, operand: text > operand,
    "$gte": lambda text, operand: text >= operand,
    "$lt": lambda text, operand: text < operand,
    "$lte": lambda text, operand: text <= operand,
    "$like": lambda text, pattern: _like(text, pattern),
    "$nlike": lambda text, pattern: not _like(text, pattern),
    "$ilike": lambda text, pattern: _like(text, pattern, re.IGNORECASE),
    "$nilike": lambda text, pattern: not _like(text, pattern, re.IGNORECASE),
}
OPERATORS = (*COMPARISONS, "$in", "$nin", "$and", "$or")


def parse_filter(value: Any, where: str, limits: FilterLimits) -> Filter:
    """The filter that JSON spells: a text (equal), texts (one of them), or operators (all hold)."""
    return _Reader(limits).read(value, where, 0)


def matches(condition: Filter, text: str) -> bool:
    """Whether a dimension's text passes; what the SQL of a filter means."""
    match condition:
        case Comparison(operator, operand):
            return COMPARISONS[operator](text, operand)
        case Membership(values, negated):
            return (text in values) != negated
        case Every(parts):
            return all(matches(part, text) for part in parts)
        case Either(parts):
            return any(matches(part, text) for part in parts)


class _Reader:
    def __init__(self, limits: FilterLimits) -> None:
        self._limits = limits
        self._nodes = 0

    def read(self, value: Any, where: str, depth: int) -> Filter:
        if isinstance(value, str):
            return Comparison("$eq", self._text(value, where))
        if isinstance(value, list):
            return Membership(self._texts(value, where))
        if not isinstance(value, Mapping) or not value:
            raise _fault(where, "must be a text, a list of texts, or an object of operators")
        parts = tuple(
            self._operator(operator, operand, f"{where}.{operator}", depth)
            for operator, operand in value.items()
        )
        return parts[0] if len(parts) == 1 else Every(parts)

    def _operator(self, operator: str, operand: Any, where: str, depth: int) -> Filter:
        self._nodes += 1
        if self._nodes > self._limits.max_nodes:
            raise _fault(where, f"the filter has more than {self._limits.max_nodes} operators")
        if operator in ("$and", "$or"):
            parts = self._parts(operand, where, depth + 1)
            return Every(parts) if operator == "$and" else Either(parts)
        if operator in ("$in", "$nin"):
            return Membership(self._texts(operand, where), negated=operator == "$nin")
        if operator not in COMPARISONS:
            raise _fault(where[:100], f"unknown operator; there are {' '.join(OPERATORS)}")
        text = self._text(operand, where)
        # An escape with nothing behind it: the engine refuses such a pattern.
        if operator.endswith("like") and _DANGLING.search(text):
            raise _fault(where, "the pattern ends with a single backslash")
        return Comparison(operator, text)

    def _parts(self, value: Any, where: str, depth: int) -> tuple[Filter, ...]:
        if depth > self._limits.max_depth:
            raise _fault(where, f"more than {self._limits.max_depth} levels")
        if not isinstance(value, list) or not 1 <= len(value) <= self._limits.max_values:
            raise _fault(where, f"must be a list of 1 to {self._limits.max_values} filters")
        return tuple(
            self.read(part, f"{where}[{index}]", depth) for index, part in enumerate(value)
        )

    def _texts(self, value: Any, where: str) -> tuple[str, ...]:
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise _fault(where, "must be a list of texts")
        if not 1 <= len(value) <= self._limits.max_values:
            raise _fault(where, f"must have 1 to {self._limits.max_values} texts")
        return tuple(self._text(item, where) for item in value)

    def _text(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise _fault(where, "must be a text")
        if len(value) > self._limits.max_text_length:
            raise _fault(where, f"is longer than {self._limits.max_text_length} characters")
        if not is_storable(value):
            raise _fault(where, "holds NUL or half a surrogate pair")
        return value


_DANGLING = re.compile(r"(?<!\\)(?:\\\\)*\\\Z")
_LIKE_TOKEN = re.compile(r"\\[%_\\]|.", re.DOTALL)


def _like(text: str, pattern: str, flags: int = 0) -> bool:
    def translate(match: re.Match[str]) -> str:
        token = match[0]
        if token in "%_":
            return ".*" if token == "%" else "."
        return re.escape(token[-1])

    expression = _LIKE_TOKEN.sub(translate, pattern)
    return re.fullmatch(expression, text, flags | re.DOTALL) is not None


def _fault(where: str, reason: str) -> ValidationError:
    return ValidationError(f"{where}: {reason}", errors=[FieldError(where, reason)])
