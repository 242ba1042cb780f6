"""Pages of a listing, as OpenMeter v1 asks for them: by page number, or by limit and offset."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Page:
    """Which items of a listing, in which order. Items of equal order are in the order of ids."""

    limit: int
    offset: int = 0
    order_by: Literal["id", "created_at", "updated_at"] = "created_at"
    descending: bool = False
    number: int | None = None
    """The page's number, when pages were asked for: then all items are counted, too."""
