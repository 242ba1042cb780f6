"""What all models have in common."""

from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

Extra = dict[str, Any]
T = TypeVar("T")


class Page(list[T], Generic[T]):
    """A page of a listing. `following` are the parameters of the next page, None at the end."""

    def __init__(self, items: Iterable[T] = (), following: Mapping[str, str] | None = None) -> None:
        super().__init__(items)
        self.following = following
