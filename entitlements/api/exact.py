"""Request bodies whose numbers keep every digit."""

import json
import re
from collections.abc import Callable, Coroutine
from decimal import Decimal
from typing import Annotated, Any, NoReturn, TypeVar

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BeforeValidator, StrictStr, WithJsonSchema
from pydantic_core import PydanticCustomError

from entitlements.specs import fault
from meterline.kernel.errors import ValidationError
from meterline.kernel.quantity import FRACTION_DIGITS, INTEGER_DIGITS, ValueFault, parse_value

_MAX_INTEGER_TEXT = 64
_TOO_MUCH = 10**INTEGER_DIGITS
_MAX_DEPTH = 64
_NAMED = re.compile("(?:unknown|required) field `(.*)`$", re.DOTALL)
T = TypeVar("T")


class _Number(str):
    """A JSON number as it was sent."""

    # Of types of other modules pydantic reads attributes: a model whose fields may all be absent
    # would take a number for itself.
    __module__ = "builtins"


def _no_number(value: Any) -> Any:
    if isinstance(value, _Number):
        raise PydanticCustomError("string_type", "Input should be a valid string")
    return value


JsonText = Annotated[StrictStr, BeforeValidator(_no_number)]
"""A text that was a text in the body, and no number."""


class _ExactRequest(Request):
    """A request whose JSON numbers with a fraction or an exponent are read as texts."""

    async def json(self) -> Any:
        """The body; what is no JSON is a `JSONDecodeError`."""
        if not hasattr(self, "_json"):
            body = await self.body()
            try:
                self._json = json.loads(
                    body, parse_float=_Number, parse_int=_integer, parse_constant=_refuse
                )
            except (RecursionError, UnicodeDecodeError):
                raise json.JSONDecodeError("not readable", "", 0) from None
        return self._json


class ExactRoute(APIRoute):
    """A route that reads its body without floats."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, which gets a request of our own."""
        handler = super().get_route_handler()

        async def exact(request: Request) -> Response:
            return await handler(_ExactRequest(request.scope, request.receive))

        return exact


def _integer(text: str) -> Any:
    return int(text) if len(text) <= _MAX_INTEGER_TEXT else _Number(text)


def with_decimals(value: Any, depth: int = 0) -> Any:
    """A part of such a body that may be any JSON, with decimals for its texts of numbers."""
    if isinstance(value, _Number):
        return Decimal(value)
    if isinstance(value, dict | list) and depth == _MAX_DEPTH:
        raise ValidationError(f"the body has more than {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        return {name: with_decimals(item, depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [with_decimals(item, depth + 1) for item in value]
    return value


def read_body_as(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """What a body says that msgspec reads; `ValidationError` tells what is wrong, and where."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise fault("body", str(error)) from None
    except RecursionError:
        raise fault("body", "has too many levels") from None


def _invalid(error: msgspec.ValidationError) -> ValidationError:
    """Of `Expected `str`, got `int` - at `$.metadata[...]``: the path, and what is wrong there."""
    text, _, path = str(error).partition(" - at `$")
    steps = [path.rstrip("`").lstrip(".")]
    steps += _NAMED.findall(text)
    return fault(".".join(filter(None, steps)) or "body", text[:1].lower() + text[1:])


def _refuse(text: str) -> NoReturn:
    raise json.JSONDecodeError(f"{text} is no JSON", "", 0)


def read_amount(value: Any) -> Decimal:
    """The decimal of a JSON number in a body that `ExactRoute` has read."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, bool) or not isinstance(value, int | _Number):
        raise PydanticCustomError("amount", "must be a number")
    parsed = parse_value(str(value))
    if isinstance(parsed, ValueFault):
        raise PydanticCustomError(
            "amount",
            "must have at most {integer} digits before the point and {fraction} after it",
            {"integer": INTEGER_DIGITS, "fraction": FRACTION_DIGITS},
        )
    return parsed


def _at_least(value: Decimal, *, zero: bool) -> Decimal:
    if value < 0 or (not zero and value == 0):
        reason = "must not be negative" if zero else "must be positive"
        raise PydanticCustomError("amount", reason)
    return value


Amount = Annotated[
    Decimal,
    BeforeValidator(lambda value: _at_least(read_amount(value), zero=True)),
    WithJsonSchema({"type": "number", "minimum": 0, "exclusiveMaximum": _TOO_MUCH}),
]
"""Zero or more, with every digit."""

PositiveAmount = Annotated[
    Decimal,
    BeforeValidator(lambda value: _at_least(read_amount(value), zero=False)),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": _TOO_MUCH}),
]
