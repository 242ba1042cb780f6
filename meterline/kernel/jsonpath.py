"""JSON paths of meters: a path names one value inside an event's data.

The dialect is the part of RFC 9535 that names a single value: `$.a.b`, `$.a[0]`, `$['a-b']`.
`find` works on the raw JSON text and answers raw JSON text, so that numbers keep every digit.
"""

import json
import re
from dataclasses import dataclass

from meterline.kernel.errors import ValidationError

MAX_PATH_LENGTH = 512
MAX_STEPS = 32
_MAX_INDEX = 1_000_000

_NAME = re.compile(r"[A-Za-z_\u0080-\U0010FFFF][0-9A-Za-z_\u0080-\U0010FFFF]*")
_INDEX = re.compile(r"\[\s*(0|[1-9][0-9]*)\s*\]")
_QUOTED = re.compile(r"""\[\s*('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\s*\]""", re.DOTALL)
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A parsed path. A step is a member name (str) or a zero-based array index (int)."""

    steps: tuple[str | int, ...]

    @property
    def text(self) -> str:
        """The canonical spelling: two paths are the same exactly when their texts are."""
        return "$" + "".join(_spell(step) for step in self.steps)


def parse_path(text: str) -> JsonPath:
    """Parse a path; `ValidationError` says at which character it goes wrong."""
    if len(text) > MAX_PATH_LENGTH:
        raise ValidationError(f"JSON path is longer than {MAX_PATH_LENGTH} characters")
    if not text.startswith("$"):
        raise ValidationError(f"JSON path must start with $: {text!r}")
    steps: list[str | int] = []
    position = 1
    while position < len(text):
        step, position = _parse_step(text, position)
        steps.append(step)
    if not steps:
        raise ValidationError("JSON path must name a member, such as $.tokens")
    if len(steps) > MAX_STEPS:
        raise ValidationError(f"JSON path has more than {MAX_STEPS} steps")
    return JsonPath(tuple(steps))


def _parse_step(text: str, position: int) -> tuple[str | int, int]:
    if text[position] == ".":
        if match := _NAME.match(text, position + 1):
            return _checked(match[0]), match.end()
    elif match := _INDEX.match(text, position):
        if len(match[1]) > 7 or int(match[1]) > _MAX_INDEX:
            raise ValidationError(f"array index in JSON path is above {_MAX_INDEX}: {text!r}")
        return int(match[1]), match.end()
    elif match := _QUOTED.match(text, position):
        return _checked(_unquote(match[1][1:-1])), match.end()
    raise ValidationError(f"JSON path is not valid at character {position + 1}: {text!r}")


def _checked(name: str) -> str:
    """Names that UTF-8 cannot carry, or that the engine cuts at a NUL, never match: refuse them."""
    if "\0" in name or _SURROGATE.search(name):
        raise ValidationError("JSON path holds a NUL character or half a surrogate pair")
    return name


def _unquote(body: str) -> str:
    def unescape(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) == 5:
            return chr(int(code[1:], 16))
        if code in _ESCAPES:
            return _ESCAPES[code]
        if code in "\\/'\"":
            return code
        raise ValidationError(f"unknown escape \\{code} in JSON path")

    name = _ESCAPE.sub(unescape, body)
    # \uD83D\uDE00 is one character, written as two escapes.
    return name.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _spell(step: str | int) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    if _NAME.fullmatch(step):
        return f".{step}"
    quoted = json.dumps(step, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("'", "\\'")
    return f"['{quoted}']"


_SPACE = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_SCALAR = re.compile(r"[-+.0-9A-Za-z]+")
_MARK = re.compile(r'["\[\]{}]')


class _Malformed(Exception):
    """The text ended or broke off inside a value."""


def find(raw: bytes | str, path: JsonPath) -> str | None:
    """The raw JSON text of the value that `path` names in `raw`, or None when there is none.

    Of duplicate member names the first wins, as in the engine's own JSON functions.
    """
    text = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else raw
    try:
        position: int | None = _skip_space(text, 0)
        for step in path.steps:
            if position is None:
                return None
            position = (
                _element(text, position, step)
                if isinstance(step, int)
                else _member(text, position, step)
            )
        return None if position is None else text[position : _value_end(text, position)]
    except _Malformed:
        return None


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position


def _value_end(text: str, position: int) -> int:
    """Where the value that starts at `position` ends."""
    first = text[position : position + 1]
    if first == '"':
        return _string_end(text, position)
    if first not in ("{", "["):
        if match := _SCALAR.match(text, position):
            return match.end()
        raise _Malformed
    depth = 0
    while match := _MARK.search(text, position):
        mark, position = match[0], match.end()
        if mark == '"':
            position = _string_end(text, position - 1)
        else:
            depth += 1 if mark in "{[" else -1
            if depth == 0:
                return position
    raise _Malformed


def _string_end(text: str, position: int) -> int:
    if match := _STRING.match(text, position):
        return match.end()
    raise _Malformed


def _next_item(text: str, position: int) -> int | None:
    """After a value: the start of the next member or element, None at the container's end."""
    position = _skip_space(text, position)
    return _skip_space(text, position + 1) if text[position : position + 1] == "," else None


def _first_item(text: str, position: int, opening: str, closing: str) -> int | None:
    if text[position : position + 1] != opening:
        return None
    start = _skip_space(text, position + 1)
    return None if text[start : start + 1] == closing else start


def _member(text: str, position: int, name: str) -> int | None:
    item = _first_item(text, position, "{", "}")
    while item is not None:
        name_end = _string_end(text, item)
        colon = _skip_space(text, name_end)
        if text[colon : colon + 1] != ":":
            raise _Malformed
        value = _skip_space(text, colon + 1)
        if _same_name(text[item + 1 : name_end - 1], name):
            return value
        item = _next_item(text, _value_end(text, value))
    return None


def _same_name(spelled: str, name: str) -> bool:
    if "\\" not in spelled:
        return spelled == name
    try:
        return bool(json.loads(f'"{spelled}"', strict=False) == name)
    except ValueError:
        return False


def _element(text: str, position: int, index: int) -> int | None:
    item = _first_item(text, position, "[", "]")
    while item is not None and index:
        item = _next_item(text, _value_end(text, item))
        index -= 1
    return item
