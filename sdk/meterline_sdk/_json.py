"""JSON without floats, and dataclasses from it. Pure."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def loads(text: bytes | str) -> Any:
    """JSON with every digit: fractions are `Decimal`."""
    return json.loads(text, parse_float=Decimal)


def dumps(value: Any) -> bytes:
    """JSON of dicts, lists, texts, numbers, `Decimal`s (as numbers) and aware times (RFC 3339)."""
    return _text(value).encode()


def _text(value: Any) -> str:
    if isinstance(value, Decimal):
        # The standard encoder knows no decimals, and would need a float.
        if not value.is_finite():
            raise ValueError("amounts must be finite")
        return format(value, "f")
    if isinstance(value, datetime):
        return json.dumps(instant(value))
    if isinstance(value, Mapping):
        members = (f"{json.dumps(str(key))}:{_text(one)}" for key, one in value.items())
        return "{" + ",".join(members) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ",".join(map(_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def instant(value: datetime | str) -> str:
    """A time as RFC 3339. Raises `ValueError` for a time without a zone."""
    if isinstance(value, str):
        return value
    if value.tzinfo is None:
        raise ValueError("a time needs a zone, such as datetime.UTC")
    return value.isoformat()


def body(**fields: Any) -> dict[str, Any]:
    """A request's object: names become camelCase, what is None is left out."""
    return {camel(name): value for name, value in fields.items() if value is not None}


def camel(name: str) -> str:
    """snake_case as camelCase. A trailing underscore (`from_`) is dropped."""
    first, *rest = name.rstrip("_").split("_")
    return first + "".join(part.capitalize() for part in rest)


def read(kind: type[T], value: Any) -> T:
    """`value`, as it came from JSON, as `kind`: a dataclass, a list or dict of them, a scalar.

    Members that a dataclass does not know are kept in its field `extra`, if it has one.
    """
    return typing.cast(T, _read(kind, value))


def _read(kind: Any, value: Any) -> Any:
    if value is None or kind is Any:
        return value
    origin = typing.get_origin(kind)
    arguments = typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (inner,) = [one for one in arguments if one is not type(None)]
        return _read(inner, value)
    if origin is list:
        return [_read(arguments[0], one) for one in value]
    if origin is dict:
        return {key: _read(arguments[1], one) for key, one in value.items()}
    if dataclasses.is_dataclass(kind):
        return _object(kind, value)
    if kind is datetime:
        return datetime.fromisoformat(value)
    if kind is Decimal:
        return Decimal(str(value))
    return value


@cache
def _fields(kind: Any) -> dict[str, tuple[str, Any]]:
    """Fields and their types by the name on the wire, in lower case: `intervalISO` has no rule."""
    hints = typing.get_type_hints(kind)
    return {name.replace("_", "").lower(): (name, hint) for name, hint in hints.items()}


def _object(kind: Any, value: Mapping[str, Any]) -> Any:
    fields = _fields(kind)
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, one in value.items():
        field = fields.get(name.lower())
        if field is None:
            extra[name] = one
        else:
            known[field[0]] = _read(field[1], one)
    if "extra" in fields:
        known["extra"] = extra
    return kind(**known)
