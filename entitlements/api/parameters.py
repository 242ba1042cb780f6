"""The parameters that listings and reads share."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import Depends, Header, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.convertors import PathConvertor, register_url_convertor

from entitlements.api.encode import Json, listing_json
from entitlements.api.wire import Instant, Name
from entitlements.limits import EntitlementLimits
from entitlements.paging import Page
from entitlements.services.values import ValueService
from entitlements.specs import fault
from meterline.web.auth import Principal, requires
from meterline.web.json import ExactJSONResponse


class _SubjectConvertor(PathConvertor):
    """A key may have slashes, but the entitlement to a feature `credits` is not one's credits."""

    regex = "(?:entitlements|.+(?<!/entitlements))"


register_url_convertor("subject", _SubjectConvertor())
_MAX_ITEM = 2**31
_WAIT = re.compile(r"(?:^|[,; ])wait=(\d{1,6})(?:$|[,; ])")
_COLUMNS: dict[str, Literal["id", "created_at", "updated_at"]] = {
    "id": "id",
    "createdAt": "created_at",
    "updatedAt": "updated_at",
}

Reader = Annotated[Principal, Depends(requires("read"))]
Admin = Annotated[Principal, Depends(requires("admin"))]


class ListParameters(BaseModel):
    """Which items of a listing."""

    page: int | None = Field(
        None,
        ge=1,
        le=_MAX_ITEM,
        description="Answers an object with this page, and how many items there are in all.",
    )
    page_size: int | None = Field(None, alias="pageSize", ge=1, le=_MAX_ITEM)
    limit: int | None = Field(None, ge=1, le=_MAX_ITEM, description="Without `page`.")
    offset: int = Field(0, ge=0, le=_MAX_ITEM, description="Without `page`.")
    order: Literal["ASC", "DESC"] = "ASC"
    order_by: Literal["id", "createdAt", "updatedAt"] = Field("createdAt", alias="orderBy")

    def as_page(self, limits: EntitlementLimits) -> Page:
        """The page; `page` wins over `limit` and `offset`."""
        size = self.page_size if self.page is not None else self.limit
        default = limits.default_page if self.page is not None else limits.max_page
        if size is not None and size > limits.max_page:
            where = "pageSize" if self.page is not None else "limit"
            raise fault(where, f"must be at most {limits.max_page}")
        size = size or default
        offset = self.offset if self.page is None else (self.page - 1) * size
        return Page(size, offset, _COLUMNS[self.order_by], self.order == "DESC", self.page)


class EndedListParameters(ListParameters):
    """Which items, with or without what has ended."""

    include_deleted: bool = Field(False, alias="includeDeleted")


class _Filters(EndedListParameters):
    feature: list[Name] = Field([], max_length=100, description="Ids or keys.")
    feature_list: list[Name] = Field([], alias="feature[]", max_length=100)
    subject: list[Name] = Field([], max_length=100)
    subject_list: list[Name] = Field([], alias="subject[]", max_length=100)

    @property
    def features(self) -> Sequence[str]:
        return [*self.feature, *self.feature_list]

    @property
    def subjects(self) -> Sequence[str]:
        return [*self.subject, *self.subject_list]


class GrantListParameters(_Filters):
    """Which grants."""


class EntitlementListParameters(_Filters):
    """Which entitlements."""

    types: list[Literal["metered", "static", "boolean"]] = Field(
        [], alias="entitlementType", max_length=10
    )
    type_list: list[Literal["metered", "static", "boolean"]] = Field(
        [], alias="entitlementType[]", max_length=10
    )
    exclude_inactive: bool = Field(
        False, alias="excludeInactive", description="Wins over `includeDeleted`."
    )


class FeatureListParameters(ListParameters):
    """Which features."""

    meter_slug: list[Name] = Field([], alias="meterSlug", max_length=100)
    meter_slug_list: list[Name] = Field([], alias="meterSlug[]", max_length=100)
    include_archived: bool = Field(False, alias="includeArchived")


Time = Annotated[
    Instant | None, Query(description="The instant to answer for, RFC 3339; now if absent.")
]


class Freshness:
    """Whether the caller wants its own acknowledged events in the answer: `wait` or `Prefer`."""

    def __init__(
        self,
        wait: Annotated[
            bool, Query(description="Wait until events acknowledged before are counted.")
        ] = False,
        prefer: Annotated[
            str | None, Header(description="`wait=N`: the same, for at most N seconds.")
        ] = None,
    ) -> None:
        match = _WAIT.search(prefer or "")
        self._seconds = int(match[1]) if match else None
        self._wait = wait or self._seconds is not None

    async def reached(self, service: ValueService) -> None:
        """Wait if that was asked for."""
        if self._wait:
            await service.wait(self._seconds)


Fresh = Annotated[Freshness, Depends()]


def ok(model: Any, status: int = 200, *others: int) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of an answer that is encoded by hand, and of refusals."""
    return {status: {"model": model}, **refusals(*others)}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What it says of refusals beside those that every route has."""
    return {status: _REFUSALS[status] for status in statuses}


def _problem(text: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": text, "content": {"application/problem+json": {"schema": schema}}}


_REFUSALS = {
    402: _problem("What is available does not suffice."),
    409: _problem("It contradicts what is there."),
    413: _problem("The body is too large."),
}


def listed(request: Request, items: Sequence[Json], total: int, page: Page) -> Response:
    """A page as an object when a page was named, else an array; then `Link` leads on."""
    headers = {}
    if page.number is None and len(items) == page.limit:
        url = request.url.include_query_params(limit=page.limit, offset=page.offset + page.limit)
        headers["link"] = f'<{url.path}?{url.query}>; rel="next"'
    return ExactJSONResponse(listing_json(items, total, page), headers=headers)
