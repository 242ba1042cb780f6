"""The parameters of a page."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Query

from entitlements.notifications.stores.paging import Page, Sorting
from meterline.web.json import ExactJSONResponse

Item = TypeVar("Item")
Number = Annotated[int, Query(ge=1, le=1_000_000)]
Size = Annotated[int, Query(alias="pageSize", ge=1, le=1_000)]
Order = Annotated[Literal["ASC", "DESC"], Query()]
Many = Annotated[list[str], Query(default_factory=list, max_length=100)]

_COLUMNS = {"id": "id", "type": "type", "createdAt": "created_at", "updatedAt": "updated_at"}


def sorting(page: int, size: int, order: str, by: str) -> Sorting:
    """Which page is meant."""
    return Sorting(page, size, _COLUMNS[by], descending=order == "DESC")


def page_response(
    page: Page[Item], wanted: Sorting, show: Callable[[Item], dict[str, Any]]
) -> ExactJSONResponse:
    """A page as OpenMeter's notifications answer it."""
    return ExactJSONResponse(
        {
            "totalCount": page.total,
            "page": wanted.page,
            "pageSize": wanted.size,
            "items": [show(one) for one in page.items],
        }
    )
