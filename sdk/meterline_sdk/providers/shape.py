"""What the tracked clients need to know of a provider's method. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from meterline_sdk.providers.sizes import Kwargs

Body = dict[str, Any]


@dataclass(slots=True)
class Seen:
    """What has been seen of a stream: the parts of a body, and how much text came."""

    body: Body = field(default_factory=dict)
    text: int = 0
    """Characters of output."""
    final: bool = False
    """Whether the provider has said what was used."""


@dataclass(frozen=True, slots=True)
class Method:
    """A public method of a provider's client that costs something.

    `kind`: `call` answers with a result, or with a stream if it is asked to; `stream` always with
    a stream; `manager` with a context manager around a helper that reads a stream.
    """

    kind: Literal["call", "stream", "manager"]
    body: Callable[[Any, Kwargs], Body | None]
    """The result's body as the server reads it, without any content; None: it does not say what
    was used. The result is an object of the provider's package, or its JSON."""
    watch: Callable[[Seen, Any], None]
    """Note what a chunk of a stream says."""
    guess: Callable[[Seen, Kwargs], Body]
    """About what was used, where the provider has not said it: by the text that was seen."""
    prepare: Callable[[Kwargs], tuple[Kwargs, bool]] = lambda kwargs: (kwargs, False)
    """Arguments that make the provider say what was used, and whether it was asked to only here."""
    hidden: Callable[[Any], bool] = lambda _: False
    """Whether a chunk is there only because `prepare` asked for it."""
    gather: Callable[[Seen, Any], None] = lambda _seen, _helper: None
    """Note what a helper has gathered, whichever way its caller read it."""
    parses: bool = False
    """Whether the answer is read into a type of the caller's, which may fail after it was given."""
    answers: bool = True
    """Whether there are tokens of output."""
    names_model: bool = True
    """Whether the body says which model gave the answer."""


Methods = Mapping[str, Method]
"""By the path from the client: `chat.completions.create`."""


def picked(value: Any, *names: str) -> Body:
    """Some members of an object of a provider's package, as JSON, without those that are None."""
    found: Body = {}
    for name in names:
        one = plain(member(value, name))
        if one is not None:
            found[name] = one
    return found


def member(value: Any, *names: str) -> Any:
    """The first member by one of the names that is not None, of an object or of its JSON."""
    for name in names:
        one = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
        if one is not None:
            return one
    return None


def plain(value: Any) -> Any:
    """An object of a provider's package as JSON."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, exclude_none=True, warnings=False)
    if hasattr(value, "dict") and callable(value.dict):
        return value.dict()
    return value
